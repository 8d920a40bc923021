"""Small synthetic photographs for the tests of data."""

import numpy as np
from PIL import Image

from edgecls.data.split import Split


def picture(path, number, size=(24, 20), mode="RGB", **options):
    """A photo that no other number gives."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path, **options)
    return path


def folder(root, counts, suffix=".png", start=0):
    """Class folders with that many photos each."""
    number = start
    for name, count in counts.items():
        for i in range(count):
            picture(root / name / f"{i:03}{suffix}", number)
            number += 1
    return root


def split_of(images: np.ndarray, labels: np.ndarray) -> Split:
    """A split of images in memory: uint8 [N, H, W, 3] with labels [N]."""
    names = [str(i) for i in range(len(images))]
    return Split(names, labels, names, np.full((len(images), 3), images.shape[1:]), images=images)
