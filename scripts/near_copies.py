"""Near-copies in a data set: how many there are, how many lie in two splits, and a run's scores without them.

    python scripts/near_copies.py                           # the built-in photographs
    python scripts/near_copies.py --recipe my.yaml          # the data of a recipe
    python scripts/near_copies.py --run runs/latest         # and the scores of the run's models
    python scripts/near_copies.py --check PHOTOS            # how the check does on altered copies of photos

With ``--run``, each model's answers on the test images (``answers.npz``) are scored twice: on all of them, and without
those that have a copy or near-copy among the images that were trained on or that chose the epoch.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from edgecls.data import near_duplicates
from edgecls.data.copies import Copies
from edgecls.data.listing import list_photos
from edgecls.data.rows import Part
from edgecls.data.sources import Dataset, load_dataset
from edgecls.data.split import check
from edgecls.metrics import evaluate
from edgecls.recipe import Data, load_recipe
from edgecls.run import Run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--recipe", help="recipe whose data is looked at; without one the built-in photographs"
    )
    parser.add_argument("--run", type=Path, help="run whose test answers are scored without near-copies")
    parser.add_argument("--check", type=Path, help="folder of photos to alter and find again")
    arguments = parser.parse_args()
    if arguments.check:
        result: dict[str, Any] = altered_copies(arguments.check)
    else:
        run = Run.find(str(arguments.run)) if arguments.run else None
        settings = (
            run.recipe.data if run else load_recipe(arguments.recipe).data if arguments.recipe else None
        )
        data = load_dataset(settings or Data(source="elpv"))
        copies = Copies({"train": data.train, "val": data.val, "test": data.test}, "near_copies", "group")
        result = counts(data, copies)
        if run is not None:
            result["scores"] = scores(run, data, leaking(copies))
    print(json.dumps(result, indent=2))


def counts(data: Dataset, copies: Copies) -> dict[str, Any]:
    """Pairs, photographs and groups of near-copies."""
    assert copies.pairs is not None
    labels = np.concatenate([split.labels for split in copies.splits.values()])
    groups = [name for part in copies.groups().values() for name in part]
    _, sizes = np.unique(groups, return_counts=True)
    leaks = leaking(copies)
    return {
        "images": len(labels),
        "copies_of_the_same_bytes": data.duplicates,
        "pairs": len(copies.pairs),
        "photographs_with_a_near_copy": len(np.unique(copies.pairs)),
        "groups": int((sizes > 1).sum()),
        "largest_group": int(sizes.max()),
        "pairs_with_different_labels": int((labels[copies.pairs[:, 0]] != labels[copies.pairs[:, 1]]).sum()),
        "pairs_in_two_splits": {f"{a} and {b}": n for (a, b), n in copies.crossing().items()},
        "test_images_with_a_near_copy_elsewhere": int(leaks.sum()),
        "test_images": len(leaks),
    }


def leaking(copies: Copies) -> np.ndarray:
    """Which test images have a copy or near-copy in another split: bool [N]."""
    groups = copies.groups()
    elsewhere = set(groups["train"]) | set(groups["val"])
    return np.array([group in elsewhere for group in groups["test"]], bool)


def scores(run: Run, data: Dataset, leaks: np.ndarray) -> dict[str, Any]:
    """Top-1 and balanced accuracy of each model in ``answers.npz``, of all test images and of those without copies."""
    result = {}
    with np.load(run.file("answers.npz")) as answers:
        for model in answers.files:
            logits = answers[model]
            if len(logits) != len(data.test):
                continue
            known = data.test.labels >= 0
            for name, chosen in (("all", known), ("without near-copies", known & ~leaks)):
                found = evaluate(logits[chosen], data.test.labels[chosen], data.classes)
                result[f"{model}, {name}"] = {
                    "images": int(chosen.sum()),
                    **{key: round(float(found[key]), 4) for key in ("top1", "balanced_accuracy")},
                }
    return result


def _jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    def change(photo: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        photo.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return change


def _without_border(share: float) -> Callable[[Image.Image], Image.Image]:
    def change(photo: Image.Image) -> Image.Image:
        x, y = round(photo.width * share), round(photo.height * share)
        return photo.crop((x, y, photo.width - x, photo.height - y))

    return change


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg, quality 50": _jpeg(50),
    "half size": lambda photo: photo.resize((photo.width // 2, photo.height // 2)),
    "brightness x 0.8": lambda photo: ImageEnhance.Brightness(photo).enhance(0.8),
    "contrast x 0.8": lambda photo: ImageEnhance.Contrast(photo).enhance(0.8),
    "border of 0.5 % cut off": _without_border(0.005),
    "border of 2 % cut off": _without_border(0.02),
    "mirrored": lambda photo: photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def altered_copies(folder: Path) -> dict[str, Any]:
    """The share of altered copies that are found, and the pairs that are found among the photos themselves."""
    files = [str(path) for path in list_photos(folder)]
    part = Part(files, np.zeros(len(files), np.int64), files)
    split = check(part, str(folder), None)
    originals = near_duplicates.read_thumbnails([split], str(folder))
    result: dict[str, Any] = {"photos": len(files), "pairs_among_them": len(near_duplicates.find(originals))}
    for name, change in CHANGES.items():
        copies = np.stack(
            [near_duplicates.thumbnail(change(Image.open(f).convert("RGB"))) for f in split.files or []]
        )
        pairs = near_duplicates.find(np.concatenate([originals, copies])).tolist()
        result[name] = sum([i, i + len(files)] in pairs for i in range(len(files))) / len(files)
    return result


if __name__ == "__main__":
    main()
