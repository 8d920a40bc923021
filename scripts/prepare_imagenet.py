"""Make the lists of ImageNet-1k (ILSVRC 2012, Russakovsky et al., 2015) from the official files.

    python scripts/prepare_imagenet.py data/imagenet

The folder has ``train`` with a folder for each synset (``n01440764``), and ``val`` either with the same folders, or with
the 50,000 images as they are published. In that case it has the files of the development kit, too, anywhere below:
``ILSVRC2012_validation_ground_truth.txt`` and ``meta.mat``. Writes ``train_list.txt``, ``val_list.txt`` and
``labels.txt``. Class numbers are those of all published weights: the synsets in the order of their names. A recipe reads
them with

    data: {source: list, path: data/imagenet, labels: data/imagenet/labels.txt}

and splits off no test images with ``test_fraction: 0``: the published figures are those of the validation images.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from official_files import read_mat, run, write_list

from edgecls.data.listing import is_photo_name, list_folders
from edgecls.errors import MissingError, UsageError
from edgecls.labels import write_labels

TRUTH = "ILSVRC2012_validation_ground_truth.txt"


def prepare(folder: Path) -> Iterator[str]:
    """Write the lists and the class names; says what was written.

    Raises:
        MissingError: Folders or files are not there.
        UsageError: They do not belong together.
    """
    synsets = [each.name for each in list_folders(folder / "train")] if (folder / "train").is_dir() else []
    if not synsets or not all(re.fullmatch(r"n\d{8}", name) for name in synsets):
        fix = "unpack ILSVRC2012_img_train.tar and the archives inside, each into its own folder"
        raise MissingError(
            "no folder train with synset folders such as n01440764", where=str(folder), fix=fix
        )
    number = {name: i for i, name in enumerate(synsets)}
    meta = next(folder.rglob("meta.mat"), None)
    known = _meta(meta) if meta is not None else {}
    yield write_list(folder / "train_list.txt", _in_folders(folder, "train", number), folder)
    if list_folders(folder / "val"):
        images = _in_folders(folder, "val", number)
    else:
        images = _published_val(folder, known, number)
    yield write_list(folder / "val_list.txt", images, folder)
    words = dict(known.values())
    names = [words.get(synset, synset) for synset in synsets]
    counts = Counter(names)  # "crane" is a bird and a machine
    write_labels(
        folder / "labels.txt",
        [
            f"{name} ({synset})" if counts[name] > 1 else name
            for name, synset in zip(names, synsets, strict=True)
        ],
    )
    yield f"{folder / 'labels.txt'}: {len(synsets)} names" + (
        "" if known else ", the synsets: there is no meta.mat"
    )


def _in_folders(folder: Path, part: str, number: dict[str, int]) -> list[tuple[str, int]]:
    images = []
    for each in list_folders(folder / part):
        if each.name not in number:
            raise UsageError(f"{part}/{each.name} is no synset of the training images", where=str(folder))
        names = sorted(path.name for path in each.iterdir() if is_photo_name(path.name))
        images += [(f"{part}/{each.name}/{name}", number[each.name]) for name in names]
    return images


def _meta(path: Path) -> dict[int, tuple[str, str]]:
    """The synset and the first of its names, by the number that the ground truth uses."""
    (synsets,) = read_mat(path, "synsets")
    fields = ("ILSVRC2012_ID", "WNID", "words")
    rows = [tuple(np.atleast_1d(row[field])[0] for field in fields) for row in np.atleast_1d(synsets)]
    return {int(i): (str(wnid), str(words).split(",")[0].strip()) for i, wnid, words in rows}


def _published_val(
    folder: Path, known: dict[int, tuple[str, str]], number: dict[str, int]
) -> list[tuple[str, int]]:
    """The validation images in the order of their names, with the labels of the ground truth."""
    truth = next(folder.rglob(TRUTH), None)
    if truth is None or not known:
        fix = "unpack ILSVRC2012_devkit_t12.tar.gz here, or put val into synset folders"
        raise MissingError(
            f"val has no synset folders, and there is no {TRUTH} with meta.mat", where=str(folder), fix=fix
        )
    names = sorted(path.name for path in (folder / "val").iterdir() if is_photo_name(path.name))
    numbers = [int(line) for line in truth.read_text("ascii").split()]
    if len(names) != len(numbers):
        raise UsageError(f"{len(names)} validation images, {len(numbers)} labels", where=str(truth))
    wrong = next((i for i in numbers if i not in known or known[i][0] not in number), None)
    if wrong is not None:
        what = f"class {wrong} of the ground truth has no folder in train"
        raise UsageError(what, where=str(truth), fix="unpack all archives of the training images")
    return [(f"val/{name}", number[known[i][0]]) for name, i in zip(names, numbers, strict=True)]


if __name__ == "__main__":
    run(__doc__ or "", prepare)
