"""Every way to resize and photos that tell them apart, for the programs of apps that compute pixels themselves."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from edgecls.data import images
from edgecls.data.preprocess import INTERPOLATIONS, Preprocess

VARIANTS = {
    f"{name}_{'antialiased' if antialias else 'plain'}": Preprocess(96, 110, name, antialias=antialias)
    for name in INTERPOLATIONS
    for antialias in (False, True)
    if not (antialias and name == "area")  # which is the same
}
SHAPES = [(375, 500), (701, 333), (64, 64), (97, 301), (110, 111), (96, 1500)]
OFF_BY_ONE = {"bilinear_plain": 1e-3, "bicubic_plain": 1e-3, "area_plain": 5e-3}
"""Of the values: sums in another order or precision, rounded to the other side. One level, never more; else none."""


def photographs() -> list[np.ndarray]:
    """Noise, which is the hardest, and real photographs where they are at hand."""
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in SHAPES]
    shared = Path(os.environ.get("EDGECLS_SHARED") or Path(__file__).parents[2] / "shared")
    return noise + [images.read_photo(path) for path in sorted((shared / "photos").glob("*.jpg"))[::20]]


def twenty() -> list[Path]:
    """Twenty photographs, which foolbox carries."""
    spec = importlib.util.find_spec("foolbox")
    if spec is None or spec.origin is None:
        pytest.skip("foolbox, which carries the photographs, is not installed")
    found = sorted(Path(spec.origin).parent.glob("data/imagenet_*.jpg"))
    assert len(found) == 20
    return found


def check(name: str, photos: list[np.ndarray], found: list[np.ndarray]) -> None:
    """``found`` are the pixels of the photos by the preprocessing ``name``, as computed elsewhere; flat."""
    preprocess, different = VARIANTS[name], []
    for photo, pixels in zip(photos, found, strict=True):
        expected = preprocess.array(photo)
        difference = np.abs(pixels.reshape(expected.shape).astype(int) - expected)
        assert difference.max() <= 1
        if not (preprocess.antialias and photo.shape[0] > 2 * photo.shape[1]):  # Pillow 13: columns first
            different.append(difference > 0)
    assert np.mean(different) <= OFF_BY_ONE.get(name, 0)
