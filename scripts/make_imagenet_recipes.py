"""Write recipes/imagenet/*.yaml from the table of the published trainings.

    python scripts/make_imagenet_recipes.py REFERENCE_DIR

One recipe for each network whose training is published (tables/recipes.csv), the 2020 one where there are two, one for
each augmentation that was published with ResNet50, and one for each published distillation of one phase.
"""

from __future__ import annotations

import argparse
import ast
import csv
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from edgecls.files import write_text
from edgecls.zoo import catalog

FOLDER = Path(__file__).parents[1] / "recipes" / "imagenet"
CARDS = 4  # a batch size of the later configurations is that of one of four cards
WIDTH = 118
COMMON = "imagenet/common"
Row = dict[str, str]

DISTILLED = {  # configuration: student and teacher
    "R50_vd_distill_MV3_large_x1_0": ("MobileNetV3_large_x1_0", "ResNet50_vd"),
    "ResX101_32x16d_wsl_distill_R50_vd": ("ResNet50_vd", "ResNeXt101_32x16d_wsl"),
}
NEVER_FIRED = ("ResNet50_HideAndSeek", "ResNet50_GridMask")
AUGMENTED = "DataAugment"  # family of the trainings of ResNet50 with one augmentation each


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reference", type=Path, help="folder with tables/")
    tables = parser.parse_args().reference / "tables"
    figures = {name_of_method(row["augmentation"]): row for row in read(tables / "augmentation_resnet50.csv")}
    written = {COMMON.partition("/")[2]}
    for row in sorted(read(tables / "recipes.csv"), key=lambda row: row["version"]):  # 2020's first
        name = name_of(row)
        if name and name not in written:
            write_text(FOLDER / f"{name}.yaml", recipe(name, row, figures))
            written.add(name)
    for path in FOLDER.glob("*.yaml"):
        if path.stem not in written:
            path.unlink()
    print(f"{len(written) - 1} recipes in {FOLDER}")


def read(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def name_of(row: Row) -> str:
    """The file of a row; empty for a network that is not in the zoo and for what one phase cannot do."""
    if row["family"] == AUGMENTED:
        return row["config"]
    if row["family"] == "quick_start":  # Flowers102
        return ""
    if row["config"] in DISTILLED:
        return "_by_".join(DISTILLED[row["config"]])
    names = catalog.names()
    return next((name for name in (row["config"], row["architecture"]) if name in names), "")


def recipe(name: str, row: Row, figures: dict[str, Row]) -> str:
    """The text of one recipe."""
    student = DISTILLED[row["config"]][0] if row["config"] in DISTILLED else row["architecture"]
    network = name if name in catalog.names() else student
    values: dict[str, Any] = {"base": COMMON, "name": name, "model": model(network, row)}
    if row["config"] in DISTILLED:
        teacher = {"name": DISTILLED[row["config"]][1], "weights": "imagenet"}
        values |= {"teacher": teacher, "distill": {"loss": "js"}}
    if augment := augmentation(row):
        values["augment"] = augment
    values["train"] = training(row)
    text = yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=WIDTH)
    return f"{header(name, network, row, figures)}\n{text}"


def header(name: str, network: str, row: Row, figures: dict[str, Row]) -> str:
    """The comment before a recipe: its command, its origin and what to expect."""
    expected = ""
    if row["family"] == AUGMENTED:
        figure = figures[name_of_method(name.removeprefix("ResNet50_"))]
        expected = f"Published top-1: {figure['top1_acc(fraction)']} ({figure['source']})."
        if name in NEVER_FIRED:
            expected += (
                " That training changed hardly an image, by a fault of the publisher's code; this one does."
            )
    elif row["config"] not in DISTILLED and catalog.get(network).top1:
        entry = catalog.get(network)
        expected = f"Published top-1: {entry.top1:.4g} ({entry.source})."
    about = (
        f"After {row['source']}. {expected + ' ' * bool(expected)}Not trained by us. The global batch is {batch(row)}; for another one change"
        " the learning rate in proportion. Scales and offsets do not decay here."
    )
    command = f"edgecls train imagenet/{name}"
    return "\n".join(f"# {line}".rstrip() for line in [command, "", *textwrap.wrap(about, WIDTH - 2)])


def name_of_method(text: str) -> str:
    """``"HideAndSeek"`` and ``"hide and seek"`` as one word."""
    word = re.sub(r"[^a-z]", "", text.lower())
    return {"standardtransform": "baseline", "randomaugment": "randaugment"}.get(word, word)


def model(network: str, row: Row) -> dict[str, Any]:
    size = int(row["train_crop_px"])
    return {"name": network} | ({"input_size": size} if size != catalog.get(network).input_size else {})


def batch(row: Row) -> int:
    return int(row["batch_size"]) * (CARDS if row["batch_size_scope"] == "per card" else 1)


def training(row: Row) -> dict[str, Any]:
    """The ``train`` section."""
    values: dict[str, Any] = {
        "epochs": int(row["epochs"]),
        "batch_size": batch(row),
        "optimizer": optimizer(row),
        "schedule": schedule(row),
    }
    smoothing = float(row["label_smoothing"] or 0)
    if smoothing > 0:
        values["label_smoothing"] = smoothing
    if row["ema"] == "True":
        values["ema_decay"] = float(row["ema_decay"])
    return values


def optimizer(row: Row) -> dict[str, Any]:
    name = {"Momentum": "sgd", "RMSProp": "rmsprop", "AdamW": "adamw"}[row["optimizer"]]
    return {"name": name, "lr": float(row["lr"]), "weight_decay": float(row["l2_decay"])}


def schedule(row: Row) -> dict[str, Any]:
    if row["lr_schedule"] in ("Piecewise", "MultiStepDecay"):
        return {"name": "piecewise", "boundaries": [float(b) for b in ast.literal_eval(row["decay_epochs"])]}
    if row["lr_schedule"] == "ExponentialWarmup":
        return {"name": "exponential", "warmup_epochs": 5.0}
    warmup = float(row["warmup_epochs"] or (5 if row["lr_schedule"] == "CosineWarmup" else 0))
    return {"name": "cosine"} | ({"warmup_epochs": warmup} if warmup else {})


def augmentation(row: Row) -> dict[str, Any]:
    """The keys of ``augment`` besides crop and mirror."""
    return dict(operations(row["train_extra_ops"], row["mix_ops"])) | crop(row)


def crop(row: Row) -> dict[str, Any]:
    scale = next(value for key, value in row.items() if key.startswith("train_crop_scale"))
    return {"crop_scale": ast.literal_eval(scale)} if scale else {}


def operations(extra: str, mixing: str) -> Iterable[tuple[str, dict[str, Any]]]:
    """The publisher's operations by our names, with our names of their options."""
    for text in filter(None, extra.split("; ")):
        name, _, options = text.partition("{")
        given = ast.literal_eval(f"{{{options}") if options else {}
        if name == "AutoAugment":
            yield "autoaugment", {"flavor": "paddle"}
        elif name == "RandAugment":
            yield "randaugment", {"flavor": "paddle", **given}
        elif name == "TimmAutoAugment":
            magnitude = int(re.search(r"-m(\d+)", given["config_str"])[1])  # type: ignore[index]
            yield "randaugment", {"magnitude": float(magnitude)}
        elif name == "Cutout":
            yield "cutout", {"n_holes": given["n_holes"], "length": float(given["length"])}
        elif name == "RandomErasing":
            yield "random_erasing", {"probability": given["EPSILON"]}
        elif name == "HideAndSeek":
            yield "hide_and_seek", {}
        elif name == "GridMask":
            yield "gridmask", {"mode": given["mode"]}
        else:
            raise ValueError(f"unknown operation {name}")
    if mixing.startswith("OpSampler"):  # one of the two for each image
        yield "mixup", {"alpha": 0.8, "probability": 0.5}
        yield "cutmix", {"alpha": 1.0, "probability": 0.5}
    elif mixing:
        name = "mixup" if mixing.startswith("Mixup") else "cutmix"
        yield name, {"alpha": float(re.search(r"'alpha': ([\d.]+)", mixing)[1])}  # type: ignore[index]


if __name__ == "__main__":
    main()
