"""The photos of a split by their numbers: from memory, from files, or checked when they are met. No TensorFlow."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from edgecls.data import decoding, images
from edgecls.data.split import Split
from edgecls.errors import EdgeclsError
from edgecls.text import escape


class Found(NamedTuple):
    """A photo of a split."""

    number: int
    """Its number in the split: another one than was asked for where that photo cannot be used."""
    height: int
    width: int
    pixels: np.ndarray | None
    """uint8 [height, width, 1 or 3]; None: a JPEG of which a window can be decoded alone."""
    jpeg: bytes = b""
    """Such a JPEG."""


class Photos(ABC):
    """The photos of a split.

    The photo after a bad one takes its place, the bad one is named in ``Split.bad``, and the run goes on up to
    ``Split.bad_allowed``. Which photos are bad depends on the files alone, so an epoch is the same after every start.
    """

    def __init__(self, split: Split) -> None:
        self._split = split
        self._bad: dict[int, str] = split.store.setdefault("bad", {})
        _check_count(split)

    def find(self, index: int) -> Found:
        """The photo, or the next one that can be used.

        Raises:
            EdgeclsError: Too many, or all, cannot be used.
        """
        count = len(self._split)
        for step in range(count):
            number = (index + step) % count
            found = None if number in self._bad else self._get(number)
            if found is not None:
                return found
        raise EdgeclsError("no image can be used", where=escape(self._split.names[index]))

    def look_again(self, indices: Iterable[int]) -> bool:
        """Leave out the bad photos of a batch, because a window of one of them could not be decoded.

        If all can be decoded in whole, they are from now on.

        Returns:
            Whether there is a photo of which only a window was decoded: else it is no use to try again.
        """
        return False

    @abstractmethod
    def _get(self, number: int) -> Found | None:
        """The photo; None if it is bad."""


class Memory(Photos):
    """Photos that are decoded once and kept, one after the other."""

    def __init__(self, split: Split) -> None:
        super().__init__(split)
        if "pixels" not in split.store:
            split.store["pixels"] = _decode_all(split)
        self._pixels: np.ndarray = split.store["pixels"]
        self._shapes = split.shapes
        self._starts = np.cumsum([0, *split.sizes[:-1]])

    def _get(self, number: int) -> Found:
        height, width, channels = shape = self._shapes[number].tolist()
        start = self._starts[number]
        flat = self._pixels[start : start + height * width * channels]
        return Found(number, height, width, flat.reshape(shape))


class Files(Photos):
    """Photos that are decoded when they are asked for, those that were not checked at the start in whole at first."""

    def __init__(self, split: Split) -> None:
        super().__init__(split)
        assert split.files is not None and split.jpeg is not None
        self._files, self._shapes, self._jpeg = split.files, split.shapes.copy(), split.jpeg.copy()
        self._whole: set[int] = set()  # TensorFlow may refuse what Pillow reads: it is not asked again

    def _get(self, number: int) -> Found | None:
        if self._jpeg[number]:
            height, width, _ = self._shapes[number].tolist()
            try:
                return Found(number, height, width, None, images.content(self._files[number]))
            except ValueError as error:
                _leave_out(self._split, number, str(error))
                return None
        photo = _read(self._split, number, self._files[number], self._shapes[number])
        if photo is None:
            return None
        if not self._split.checked and photo.jpeg and number not in self._whole:
            self._shapes[number] = photo.pixels.shape
            self._jpeg[number] = True  # last: other threads read the shape if it is set
        height, width, _ = photo.pixels.shape
        return Found(number, height, width, photo.pixels)

    def look_again(self, indices: Iterable[int]) -> bool:
        windows = {number for index in indices if self._jpeg[number := self.find(index).number]}
        good = [n for n in windows if _read(self._split, n, self._files[n], self._shapes[n]) is not None]
        if len(good) == len(windows):
            self._whole |= windows
            self._jpeg[good] = False
        return bool(windows)


def photos(split: Split, cache: bool = True) -> Photos:
    """The photos of a split, from memory where they fit and ``cache`` is set."""
    if split.images is not None or (cache and split.in_memory and split.checked):
        return Memory(split)
    return Files(split)


def _decode_all(split: Split) -> np.ndarray:
    """The pixels of all images of a split, one image after the other: uint8 [sum of H * W * C]."""
    if split.images is not None:
        return split.images.reshape(-1)
    assert split.files is not None
    files, stops = split.files, np.cumsum(split.sizes)
    flat = np.empty(stops[-1] if len(files) else 0, np.uint8)

    def decode(i: int) -> None:
        photo = _read(split, i, files[i], split.shapes[i])
        if photo is not None:
            flat[stops[i] - photo.pixels.size : stops[i]] = photo.pixels.reshape(-1)

    with ThreadPoolExecutor(images.threads()) as pool:
        for _ in pool.map(decode, range(len(files))):
            pass
    return flat


def _read(split: Split, number: int, file: str, shape: np.ndarray) -> decoding.Photo | None:
    """Read a photo. If it is bad, or not of ``shape`` (zeros: not known), leave it out and return None."""
    try:
        photo, _ = images.read(file)
    except ValueError as error:
        _leave_out(split, number, str(error))
        return None
    if shape.any() and photo.pixels.shape != tuple(shape):
        _leave_out(split, number, "was changed since the start")
        return None
    return photo


_lock = threading.Lock()


def _leave_out(split: Split, number: int, reason: str) -> None:
    """Count and name a bad photo.

    Raises:
        EdgeclsError: There are more than ``split.bad_allowed``.
    """
    with _lock:
        bad = split.store.setdefault("bad", {})
        if number not in bad:
            bad[number] = reason
            split.bad.append((split.names[number], reason))
        _check_count(split)


def _check_count(split: Split) -> None:
    bad = split.store["bad"]
    if len(bad) > split.bad_allowed:
        number, reason = list(bad.items())[-1]
        raise EdgeclsError(
            f"{len(bad)} of {len(split)} images cannot be used, more than data.max_bad_fraction allows;"
            f" the last: {split.names[number]}: {reason}",
            fix="remove or repair them, or raise the limit",
        )
