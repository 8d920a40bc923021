"""Weights and images made from names alone, as the reference logits were made.

Each array is drawn from a generator seeded with the CRC of its state name and scaled by its kind, so no weight file
is needed to compare a network with its original.
"""

from __future__ import annotations

import zlib

import numpy as np


def weight(name: str, shape: tuple[int, ...], gain: float) -> np.ndarray:
    """One array in the reference's layout: convolutions [out, in / groups, h, w], dense [in, out]."""
    z = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(shape, np.float32)
    if len(shape) == 4:
        return z * np.float32(np.sqrt(2 * gain / np.prod(shape[1:])))
    if len(shape) == 2:
        return z * np.float32(np.sqrt(1 / shape[0]))
    if name.endswith("_variance"):
        return 2 * np.exp(np.float32(0.1) * z)
    return np.float32(0.1) * z + np.float32(name.endswith("weight"))


def image(size: int) -> np.ndarray:
    """White noise [1, size, size, 3], the first image of the reference's seed 0."""
    z = np.random.Generator(np.random.PCG64(0)).standard_normal((1, 3, size, size), np.float32)
    return np.ascontiguousarray(z.transpose(0, 2, 3, 1))
