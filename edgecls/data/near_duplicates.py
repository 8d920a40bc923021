"""Photos that are almost the same: another compression, size or brightness, or the same thing taken twice.

Two photos are near-copies if their difference hashes differ in at most ``MOST_BITS`` of 128 bits (the fast pass over
all pairs), and their thumbnails of 32 x 32 gray pixels correlate by ``LEAST_CORRELATION`` or more (the check on
pixels). A correlation does not see a change of brightness or contrast. On 200 different photographs of ImageNet no
pair comes near; a copy as JPEG of quality 50 or at half the size is found; a copy whose border was cut off by more
than a hundredth is not. Photos without any contrast have no near-copies. No TensorFlow.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from edgecls.data import images
from edgecls.data.split import Split
from edgecls.files import atomic

MOST_BITS = 15
LEAST_CORRELATION = 0.994
LEAST_CONTRAST = 2.0
"""Standard deviation of a thumbnail, in steps of 255, from which its correlation says something."""

_SIDE = 32
_HASH = 9  # the hash compares neighbors in 9 x 9 pixels
_BLOCK = 512
_CHECKED = 20_000  # pairs whose pixels are compared at once: frames of one scene make very many
_VERSION = 1  # raise when thumbnails are made differently

Thumbnails = np.ndarray
"""uint8 [N, 32 * 32 + 9 * 9]: each photo in gray at both sizes; zeros where it cannot be read."""


def find(thumbnails: Thumbnails, least_correlation: float = LEAST_CORRELATION) -> np.ndarray:
    """All pairs of near-copies.

    The time grows with the square of the number of photos.

    Args:
        thumbnails: See ``read_thumbnails``.
        least_correlation: Correlation of their pixels from which two photos are near-copies.

    Returns:
        int64 [P, 2], the lower index first, in order.

    Example:
        >>> ramp = np.tile(np.arange(32, dtype=np.uint8), 32), np.tile(np.arange(9, dtype=np.uint8), 9)
        >>> find(np.stack([np.concatenate(ramp), 2 * np.concatenate(ramp)]))
        array([[0, 1]])
    """
    pixels = thumbnails[:, : _SIDE**2].astype(np.float32)
    pixels -= pixels.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(pixels, axis=1)
    usable = np.flatnonzero(norms >= LEAST_CONTRAST * _SIDE)
    if len(usable) < 2:
        return np.zeros((0, 2), np.int64)
    pixels = pixels[usable] / norms[usable, None]
    found = [
        some[np.einsum("ij,ij->i", pixels[some[:, 0]], pixels[some[:, 1]]) >= least_correlation]
        for pairs in _alike(_hashes(thumbnails[usable]))
        for some in np.split(pairs, range(_CHECKED, len(pairs), _CHECKED))
    ]
    return usable[np.concatenate(found)]


def _hashes(thumbnails: Thumbnails) -> np.ndarray:
    """Difference hashes: float32 [N, 128], 1 where a pixel is brighter than its left or upper neighbor, else -1."""
    small = thumbnails[:, _SIDE**2 :].reshape(-1, _HASH, _HASH).astype(np.int16)
    across, down = np.diff(small, axis=2)[:, :-1], np.diff(small, axis=1)[:, :, :-1]
    bits = np.concatenate([across.reshape(len(small), -1), down.reshape(len(small), -1)], axis=1) > 0
    return np.where(bits, 1, -1).astype(np.float32)


def _alike(hashes: np.ndarray) -> Iterator[np.ndarray]:
    """Pairs with nearly equal hashes, int64 [P, 2], a block of rows at a time."""
    least = hashes.shape[1] - 2 * MOST_BITS
    for start in range(0, len(hashes), _BLOCK):
        rows, columns = np.nonzero(hashes[start : start + _BLOCK] @ hashes[start:].T >= least)
        above = columns > rows
        yield np.stack([rows[above], columns[above]], axis=1) + start


def read_thumbnails(
    splits: Sequence[Split], source: str, progress: Callable[[int, int], None] | None = None
) -> Thumbnails:
    """Thumbnails of all photos of some splits, in their order; those of files are kept in the user's cache.

    Args:
        splits: The photos.
        source: Name of the cache, as for ``images.cache_file``.
        progress: Called with (done, all) while photos are read for the first time.
    """
    digests = [digest for split in splits for digest in split.digests]
    cache = images.cache_file(source).with_suffix(".thumbnails.npz")
    known = _read_cache(cache)
    items = [(split, i) for split in splits for i in range(len(split))]
    todo = {digest: item for digest, item in zip(digests, items, strict=True) if digest not in known}
    done = 0
    with ThreadPoolExecutor(images.threads()) as pool:
        for digest, thumbnail in zip(todo, pool.map(_thumbnail, todo.values()), strict=True):
            known[digest] = thumbnail
            done += 1
            if progress is not None and done % _BLOCK == 0:
                progress(done, len(todo))
    wanted = {digest: known[digest] for digest in dict.fromkeys(digests)}
    if todo and any(split.files for split in splits):
        _write_cache(cache, wanted)
    return (
        np.stack([wanted[digest] for digest in digests])
        if digests
        else np.zeros((0, _SIDE**2 + _HASH**2), np.uint8)
    )


def _thumbnail(item: tuple[Split, int]) -> np.ndarray:
    split, i = item
    try:
        gray = _gray(split, i)
    except Exception:  # it is named by whoever decodes it for training
        return np.zeros(_SIDE**2 + _HASH**2, np.uint8)
    return thumbnail(gray)


def thumbnail(photo: Image.Image) -> np.ndarray:
    """One row of ``Thumbnails``.

    Example:
        >>> thumbnail(Image.new("RGB", (640, 480))).shape
        (1105,)
    """
    gray, method = photo.convert("L"), Image.Resampling.BILINEAR
    return np.concatenate(
        [np.asarray(gray.resize((side, side), method)).reshape(-1) for side in (_SIDE, _HASH)]
    )


def _gray(split: Split, i: int) -> Image.Image:
    """The photo in gray; a large JPEG is decoded at a fraction of its size."""
    if split.images is not None:
        pixels = split.images[i]
    else:
        assert split.files is not None
        data = images.read_file(split.files[i])
        if data[:2] == b"\xff\xd8":
            photo = Image.open(io.BytesIO(data))
            photo.draft("L", (4 * _SIDE, 4 * _SIDE))
            return ImageOps.exif_transpose(photo).convert("L")
        pixels = images.decode(data)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("L")


def _read_cache(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as stored:
            if int(stored["version"]) != _VERSION:
                return {}
            return dict(zip(stored["digests"].tolist(), stored["thumbnails"], strict=True))
    except Exception:  # no cache, or a damaged one: every photo is read again
        return {}


def _write_cache(path: Path, thumbnails: dict[str, np.ndarray]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as part:
            np.savez(
                part,
                version=_VERSION,
                digests=list(thumbnails),
                thumbnails=np.stack(list(thumbnails.values())),
            )
    except Exception:  # training goes on where the cache folder is read-only or full
        pass
