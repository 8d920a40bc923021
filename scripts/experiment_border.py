"""What it costs that an int8 file pads the border of a photo with one color: the table in docs/quantize.md.

    python scripts/experiment_border.py PHOTOS    # a folder with labels.csv: file, ImageNet class from 0 to 999

The stem's kernel normalizes the pixels of an int8 file, so padding is one pixel value for all channels in place of the
three means (``edgecls.quantize.rules.affine``). Here EfficientNetLite0 with its published weights gets ImageNet's means:
its first kernel is changed so that all but the border is the same. It is compared with its twin without rounding, which
differs in the border alone. The published network, which has one mean, shows what a change of the border does otherwise.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np

NETWORK, SIZE, SHORT = "EfficientNetLite0", 224, 256
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
BATCH = 10


def with_means_of_imagenet(model: Any) -> Any:
    """``model`` with other means and deviations, which its first kernel undoes."""
    from edgecls.graph import rebuild
    from edgecls.zoo.layers import BatchNormalization, Normalize

    def normalized(layer: Any, x: Any) -> Any:
        return Normalize(MEAN, STD, name=layer.name)(x) if isinstance(layer, Normalize) else None

    copy = rebuild(model, normalized)
    old = next(layer for layer in model.layers if isinstance(layer, Normalize))
    stem = next(layer for layer in copy.layers if hasattr(layer, "kernel"))
    norm = next(layer for layer in copy.layers if isinstance(layer, BatchNormalization))
    factor, summand = np.array(STD) / old.std, (np.array(MEAN) - old.mean) / old.std
    kernel = stem.kernel.numpy().astype(float)
    norm.moving_mean.assign(norm.moving_mean.numpy() - np.einsum("hwio,i->o", kernel, summand))
    stem.kernel.assign(kernel * factor[:, None])
    return copy


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--count", type=int, default=200)
    args = parser.parse_args()

    from edgecls.quiet import import_tensorflow

    import_tensorflow()
    import edgecls
    from edgecls.data.preprocess import Preprocess
    from edgecls.quantize import fake_quantization

    with (args.photos / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[: args.count]
    preprocess = Preprocess(SIZE, SHORT)
    pixels = np.stack([preprocess.load(str(args.photos / row["file"])) for row in rows]).astype(np.float32)
    truth = np.array([int(row["imagenet_class"]) for row in rows])

    def logits(network: Any) -> np.ndarray:
        parts = range(0, len(pixels), BATCH)
        return np.concatenate([np.asarray(network(pixels[i : i + BATCH], training=False)) for i in parts])

    published = edgecls.build_model(NETWORK, weights="imagenet", include_preprocessing=True)
    other = with_means_of_imagenet(published)
    twin = edgecls.quantize_model(other)
    with fake_quantization(twin, on=False):
        answers = {"as published, border 127": logits(published), "border of three means": logits(other)}
        answers["border of one color"] = logits(twin)
    edgecls.calibrate(twin, [pixels[i : i + BATCH] for i in range(0, len(pixels), BATCH)])
    answers["int8 of the last, calibrated on the same photos"] = logits(twin)
    print(f"{len(rows)} photographs, {SIZE} x {SIZE} pixels\n")
    print("| network | top-1 | answers as with three means | largest difference of a logit, of their range |")
    print("|---|---:|---:|---:|")
    expect = answers["border of three means"]
    for name, got in answers.items():
        same = np.mean(got.argmax(1) == expect.argmax(1))
        far = np.abs(got - expect).max() / np.ptp(expect)
        print(f"| {name} | {np.mean(got.argmax(1) == truth):.4f} | {same:.4f} | {far:.4f} |")


if __name__ == "__main__":
    main()
