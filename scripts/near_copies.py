"""Near-copies in a data set: how many there are, how many lie in two splits, and a run's scores without them.

    python scripts/near_copies.py                           # the built-in photographs
    python scripts/near_copies.py --recipe my.yaml          # the data of a recipe
    python scripts/near_copies.py --run runs/latest         # the scores of a run's models
    python scripts/near_copies.py --check PHOTOS            # how the check does on altered copies of photos

With ``--run``, each model's answers on the test images (``answers.npz``) are scored three times: on all of them, without
those that have a copy or near-copy among the images that were trained on or that chose the epoch, and on those alone.
``--write`` writes what was measured into docs/data.md, too.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from edgecls.data import near_duplicates
from edgecls.data.copies import Copies
from edgecls.data.listing import list_photos
from edgecls.data.rows import Part
from edgecls.data.sources import Dataset, load_dataset
from edgecls.data.split import Split, check
from edgecls.errors import UsageError
from edgecls.files import read_json, write_text
from edgecls.metrics import evaluate
from edgecls.recipe import Data, load_recipe
from edgecls.run import Run

PAGE = Path(__file__).parent.parent / "docs" / "data.md"
BEGIN, END = "<!-- {}: scripts/near_copies.py {}--write -->", "<!-- end of {} -->"
LIMITS = (0.99, 0.992, 0.993, 0.994, 0.995, 0.996, 0.997, 0.998)
"""Correlations that are tried as the limit."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--recipe", help="recipe whose data is looked at; without one the built-in photographs")
    what.add_argument("--run", help="run whose test answers are scored without near-copies")
    what.add_argument("--check", type=Path, help="folder of photos to alter and find again")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/data.md")
    arguments = parser.parse_args()
    result: dict[str, Any]
    if arguments.check:
        result = altered_copies(arguments.check)
        section, option, text = "altered copies", "--check PHOTOS ", table_of_altered(result)
    elif arguments.run:
        result = scores_of(Run.find(arguments.run))
        section, option, text = "scores of a run", "--run RUN ", table_of_scores(result["scores"])
    else:
        settings = load_recipe(arguments.recipe).data if arguments.recipe else Data(source="elpv")
        data = load_dataset(settings)
        result = counts(data, copies_in(data))
        section, option, text = "built-in photographs", "", text_of_counts(result)
    print(json.dumps(result, indent=2))
    if arguments.write:
        if arguments.recipe:
            parser.error("--write is for the built-in photographs, --run and --check")
        write_text(PAGE, with_section(PAGE.read_text(encoding="utf-8"), section, option, text))


def with_section(page: str, section: str, option: str, text: str) -> str:
    """The page with another text between a section's two markers."""
    begin, end = BEGIN.format(section, option), END.format(section)
    if page.count(begin) != 1 or page.count(end) != 1:
        raise UsageError(f"no markers '{begin}' and '{end}'", where=str(PAGE))
    return f"{page.partition(begin)[0]}{begin}\n\n{text}\n\n{end}{page.partition(end)[2]}"


def copies_in(data: Dataset) -> Copies:
    return Copies({"train": data.train, "val": data.val, "test": data.test}, "near_copies", "group")


def counts(data: Dataset, copies: Copies) -> dict[str, Any]:
    """Pairs, photographs and groups of near-copies."""
    assert copies.pairs is not None
    labels = np.concatenate([split.labels for split in copies.splits.values()])
    groups = np.concatenate(list(copies.numbers().values()))
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
        "photographs_by_limit": by_limit(list(copies.splits.values())),
    }


def by_limit(splits: list[Split]) -> dict[str, int]:
    """Photographs that have a near-copy, by the least correlation of two near-copies."""
    thumbnails = near_duplicates.read_thumbnails(splits, "near_copies")
    return {f"{limit:g}": len(np.unique(near_duplicates.find(thumbnails, limit))) for limit in LIMITS}


def leaking(copies: Copies) -> np.ndarray:
    """Which test images have a copy or near-copy in another split: bool [N]."""
    numbers = copies.numbers()
    return np.isin(numbers["test"], np.concatenate([numbers["train"], numbers["val"]]))


def scores_of(run: Run) -> dict[str, Any]:
    """A run's scores on its test images with and without near-copies.

    Raises:
        UsageError: The test images are others than those that were scored.
    """
    data = load_dataset(run.recipe.data)
    if read_json(run.file("eval.json"))["split_sha256"] != data.test.sha256:
        fix = "run edgecls train again"
        raise UsageError("the test images have changed since they were scored", where=str(run.path), fix=fix)
    copies = copies_in(data)
    known = data.test.labels >= 0  # only these were scored
    with np.load(run.file("answers.npz")) as answers:
        found = scores(answers, data.test.labels[known], leaking(copies)[known], data.classes)
    return {**counts(data, copies), "scores": found}


def scores(
    answers: Mapping[str, np.ndarray], labels: np.ndarray, leaks: np.ndarray, classes: list[str]
) -> dict[str, dict[str, Any]]:
    """Top-1 and balanced accuracy of each model on all images, without those that leak, and on those alone.

    Args:
        answers: ``<model>_class``: the class that each image was taken for, int [N].
        labels: int [N], none is -1.
        leaks: bool [N].
        classes: Names.

    Returns:
        ``{model: {which images: {"images", "top1", "balanced_accuracy", "balanced_accuracy_ci95"}}}``.
    """
    groups = {"all": np.ones_like(leaks), "without near-copies": ~leaks, "near-copies alone": leaks}
    result: dict[str, dict[str, Any]] = {}
    for key in [key for key in answers if key.endswith("_class")]:
        one_hot = np.eye(len(classes), dtype=np.float32)[answers[key]]
        for name, chosen in groups.items():
            found = evaluate(one_hot[chosen], labels[chosen], classes) if chosen.any() else {}
            row = {k: found.get(k) for k in ("top1", "balanced_accuracy", "balanced_accuracy_ci95")}
            result.setdefault(key.removesuffix("_class"), {})[name] = {"images": int(chosen.sum()), **row}
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
    """The share of altered copies that are found, and the pairs among the photos themselves, by the limit."""
    files = [str(path) for path in list_photos(folder)]
    split = check(Part(files, np.zeros(len(files), np.int64), files), str(folder), None)
    files = split.files or []
    originals = near_duplicates.read_thumbnails([split], str(folder))
    found = {name: dict.fromkeys(map(str, LIMITS), 0.0) for name in CHANGES}
    for name, change in CHANGES.items():
        altered = [near_duplicates.thumbnail(change(Image.open(file).convert("RGB"))) for file in files]
        both = np.concatenate([originals, np.stack(altered)])
        for limit in LIMITS:
            pairs = near_duplicates.find(both, limit)
            found[name][str(limit)] = int((pairs[:, 1] - pairs[:, 0] == len(files)).sum()) / len(files)
    among = {str(limit): len(near_duplicates.find(originals, limit)) for limit in LIMITS}
    return {"photos": len(files), "found": found, "pairs_among_them": among}


# The page --------------------------------------------------------------------------------------------------------


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _table(header: list[str], rows: list[str]) -> str:
    return "\n".join([_row(*header), "|" + "---|" * len(header), *rows])


def table_of_altered(result: dict[str, Any]) -> str:
    """What is found of altered photos, by the limit."""
    header = [f"{result['photos']} photographs, least correlation", *map(str, LIMITS)]
    rows = [
        _row(name, *(f"{100 * share:.4g} %" for share in by.values())) for name, by in result["found"].items()
    ]
    return _table(header, [*rows, _row("pairs among the photographs", *result["pairs_among_them"].values())])


def text_of_counts(result: dict[str, Any]) -> str:
    """The near-copies of the built-in photographs."""
    crossing = ", ".join(f"{n} in {where} images" for where, n in result["pairs_in_two_splits"].items())
    text = [
        f"Among the {result['images']:,} built-in photographs there are {result['pairs']} pairs:",
        f"{result['photographs_with_a_near_copy']} photographs have a near-copy.",
        f"In the split of `data.source: elpv` these pairs are in two splits: {crossing}.",
        f"{result['test_images_with_a_near_copy_elsewhere']} of the {result['test_images']} test images",
        f"are connected with others. {result['pairs_with_different_labels']} pairs have different labels.",
    ]
    by = result["photographs_by_limit"]
    table = _table(["least correlation", *by], [_row("photographs with a near-copy", *by.values())])
    return " ".join(text) + "\n\n" + table


def table_of_scores(found: dict[str, dict[str, Any]]) -> str:
    """A line for each model and choice of test images."""
    rows = [
        _row(model, name, row["images"], *map(_share, (row["balanced_accuracy"], row["top1"])))
        for model, groups in found.items()
        for name, row in groups.items()
    ]
    return _table(["model", "test images", "count", "balanced accuracy", "top-1"], rows)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    main()
