"""Make the lists of Oxford Flowers 102 (Nilsback and Zisserman, 2008) from the official files.

    python scripts/prepare_flowers102.py data/flowers102

The folder has, from https://www.robots.ox.ac.uk/~vgg/data/flowers/102/, ``imagelabels.mat``, ``setid.mat`` and the folder
``jpg`` of ``102flowers.tgz``. Writes ``train_list.txt`` (1,020 images), ``val_list.txt`` (1,020) and ``test_list.txt``
(6,149), with labels from 0. A recipe reads them with

    data: {source: list, path: data/flowers102, classes: 102}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from official_files import read_mat, run, write_list

from edgecls.errors import UsageError

SETS = {"train": "trnid", "val": "valid", "test": "tstid"}


def prepare(folder: Path) -> Iterator[str]:
    """Write the lists; says what was written.

    Raises:
        UsageError: The files do not belong together.
    """
    labels = np.atleast_1d(read_mat(folder / "imagelabels.mat", "labels")[0]).astype(int)
    sets = read_mat(folder / "setid.mat", *SETS.values())
    for name, numbers in zip(SETS, sets, strict=True):
        numbers = np.atleast_1d(numbers).astype(int)
        if numbers.min() < 1 or numbers.max() > len(labels):
            what = f"setid.mat names image {numbers.max()}, imagelabels.mat has {len(labels)}"
            raise UsageError(what, where=str(folder), fix="take both files from one place")
        images = [(f"jpg/image_{i:05}.jpg", int(labels[i - 1]) - 1) for i in numbers]
        yield write_list(folder / f"{name}_list.txt", images, folder)


if __name__ == "__main__":
    run(__doc__ or "", prepare)
