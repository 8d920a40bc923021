"""Which photos may be near-copies of which: perceptual hashes of windows, then thumbnails. No TensorFlow.

A hash of the whole photo does not find a copy whose border was cut off. So each photo is hashed in ``VIEWS``, windows
of its thumbnail: the whole, and squares of 0.9 and 0.8 of its sides at nine places each. Two photos are a candidate if
the whole of one is like a view of the other: hashes that differ in few bits, then thumbnails that correlate. The hash
is that of ``edgecls.data.near_duplicates``: 128 differences between neighbors in 9 x 9 pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from edgecls.data.near_duplicates import LEAST_CONTRAST, MOST_BITS, Thumbnails

MOST_BITS_OF_VIEWS = 25
"""Differing bits of 128 up to which a photo and a view are compared in pixels. A cut between two views costs bits."""
LEAST_LIKENESS = 0.8
"""Correlation of two thumbnails from which SIFT is asked."""

_SIDE, _HASH, _CHECK = (
    32,
    9,
    16,
)  # sides in pixels of a thumbnail, of what is hashed, and of what is correlated
_SCALES, _PLACES = (0.9, 0.8), 3
_BLOCK = 512  # photos that others are compared with at once: 512 x 256 x 19 sums of 4 bytes are 10 MB

BITS = 128
Codes = np.ndarray
"""uint8 [N, V, 16]: hashes of N photos in V views, 8 bits in a byte."""


class View(NamedTuple):
    """A square window of a photo, as shares of its sides."""

    top: float
    left: float
    size: float


def _views() -> tuple[View, ...]:
    views = [View(0.0, 0.0, 1.0)]
    for size in _SCALES:
        starts = np.linspace(0, 1 - size, _PLACES).tolist()
        views += [View(top, left, size) for top in starts for left in starts]
    return tuple(views)


VIEWS = _views()
"""The whole photo first."""


def has_contrast(thumbnails: Thumbnails) -> np.ndarray:
    """Which photos show enough to be compared: bool [N]."""
    return thumbnails[:, : _SIDE**2].std(axis=1) >= LEAST_CONTRAST


def codes(thumbnails: Thumbnails, views: int = len(VIEWS)) -> Codes:
    """Hashes of photos in the first ``views`` of ``VIEWS``.

    Args:
        thumbnails: uint8 [N, 32 * 32 + 9 * 9], see ``edgecls.data.near_duplicates``.
        views: 1: the whole photo only.

    Example:
        >>> codes(np.zeros((2, 1105), np.uint8)).shape
        (2, 19, 16)
    """
    result = np.empty((len(thumbnails), views, 16), np.uint8)
    for number, view in enumerate(VIEWS[:views]):
        small = _resized(thumbnails, view, _HASH)
        across, down = np.diff(small, axis=2)[:, :-1], np.diff(small, axis=1)[:, :, :-1]
        bits = np.concatenate([across.reshape(-1, BITS // 2), down.reshape(-1, BITS // 2)], axis=1) > 0
        result[:, number] = np.packbits(bits, axis=1)
    return result


class Pairs(NamedTuple):
    """Pairs of photos whose hashes are alike, each with the view of either photo in which they are.

    Attributes:
        left: int64 [P], numbers of photos.
        right: int64 [P].
        left_view: int64 [P], numbers of views; one of the two is 0.
        right_view: int64 [P].
        bits: int64 [P], how many bits differ.
    """

    left: np.ndarray
    right: np.ndarray
    left_view: np.ndarray
    right_view: np.ndarray
    bits: np.ndarray

    def at(self, chosen: np.ndarray) -> Pairs:
        """Some of the pairs, by their numbers or a mask."""
        return Pairs(*(column[chosen] for column in self))


def alike(left: Codes, right: Codes, most: int) -> Pairs:
    """Pairs of photos with nearly equal hashes: at most ``MOST_BITS`` bits apart, in views ``MOST_BITS_OF_VIEWS``.

    Args:
        left: A block of photos, uint8 [N, V, 16].
        right: All others, uint8 [M, V, 16]. They are compared in blocks.
        most: Pairs of each left photo, those with the nearest hashes: memory stays small where all photos are alike.

    Returns:
        The pairs in the order of their left photos, for each the nearest first.
    """
    limit = MOST_BITS_OF_VIEWS if left.shape[1] > 1 else MOST_BITS
    found = Pairs(*np.zeros((5, 0), np.int64))
    for block in blocks(len(right), _BLOCK):
        more = _alike(left, right[block], block.start, limit)
        found = _nearest(Pairs(*map(np.concatenate, zip(found, more, strict=True))), most)
    return found


def _nearest(pairs: Pairs, most: int) -> Pairs:
    order = np.lexsort((pairs.right, pairs.bits, pairs.left))
    photos = pairs.left[order]
    rank = np.arange(len(order)) - np.searchsorted(photos, photos)
    return pairs.at(order[rank < most])


def _alike(left: Codes, right: Codes, start: int, limit: int) -> Pairs:
    n, m, views = len(left), len(right), left.shape[1]
    a, b = _signs(left), _signs(right)
    in_right = (a[:, 0] @ b.reshape(m * views, BITS).T).reshape(n, m, views)
    in_left = (a.reshape(n * views, BITS) @ b[:, 0].T).reshape(n, views, m).transpose(0, 2, 1)
    products = np.concatenate([in_right, in_left], axis=2)
    best = products.argmax(axis=2)
    bits = (BITS - np.take_along_axis(products, best[..., None], 2)[..., 0]).astype(np.int64) // 2
    i, j = np.nonzero(bits <= limit)
    view = best[i, j]
    right_view = np.where(view < views, view, 0)
    return Pairs(i, j + start, np.where(view < views, 0, view - views), right_view, bits[i, j])


def _signs(packed: Codes) -> np.ndarray:
    return np.unpackbits(packed, axis=2).astype(np.float32) * 2 - 1


def likeness(
    left: Thumbnails, right: Thumbnails, left_view: np.ndarray, right_view: np.ndarray
) -> np.ndarray:
    """Correlation of each photo of ``left`` with that of ``right`` in their views, float32 [P]."""
    a, b = (_cut_out(*side) for side in ((left, left_view), (right, right_view)))
    return np.einsum("ij,ij->i", a, b)


def _cut_out(thumbnails: Thumbnails, views: np.ndarray) -> np.ndarray:
    """The views of thumbnails, of mean 0 and length 1: float32 [P, 16 * 16]."""
    pixels = np.empty((len(thumbnails), _CHECK**2), np.float32)
    for number in np.unique(views):
        chosen = views == number
        pixels[chosen] = _resized(thumbnails[chosen], VIEWS[number], _CHECK).reshape(-1, _CHECK**2)
    pixels -= pixels.mean(axis=1, keepdims=True)
    return pixels / np.maximum(np.linalg.norm(pixels, axis=1, keepdims=True), 1e-6)


def _resized(thumbnails: Thumbnails, view: View, side: int) -> np.ndarray:
    pixels = thumbnails[:, : _SIDE**2].reshape(-1, _SIDE, _SIDE).astype(np.float32)
    return _matrix(view.top, view.size, side) @ pixels @ _matrix(view.left, view.size, side).T


@cache
def _matrix(start: float, size: float, side: int) -> np.ndarray:
    """Resizing a part of a line of a thumbnail as a product: float32 [side, 32], Pillow's bilinear with anti-aliasing."""
    box = (0, start * _SIDE, 1, min(_SIDE, (start + size) * _SIDE))
    columns = [Image.fromarray(column[:, None]) for column in np.eye(_SIDE, dtype=np.float32)]
    resized = [np.asarray(c.resize((1, side), Image.Resampling.BILINEAR, box=box))[:, 0] for c in columns]
    return np.stack(resized, axis=1)


def blocks(count: int, size: int) -> Iterator[slice]:
    """Consecutive parts of ``range(count)``."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
