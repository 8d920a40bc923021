"""The photos of a split by their numbers: from memory, from files, or checked when they are met. No TensorFlow."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np

from edgecls.data import images
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


class Photos(Protocol):
    """Finds a photo by its number."""

    def find(self, index: int) -> Found: ...


class Memory:
    """Photos that are decoded once and kept, one after the other."""

    def __init__(self, split: Split) -> None:
        if "pixels" not in split.store:
            split.store["pixels"] = _decode_all(split)
        self._pixels: np.ndarray = split.store["pixels"]
        self._shapes = split.shapes
        self._starts = np.cumsum([0, *split.sizes[:-1]])

    def find(self, index: int) -> Found:
        height, width, channels = shape = self._shapes[index].tolist()
        start = self._starts[index]
        flat = self._pixels[start : start + height * width * channels]
        return Found(index, height, width, flat.reshape(shape))


class Files:
    """Photos that were checked at the start, decoded when they are asked for."""

    def __init__(self, split: Split) -> None:
        assert split.files is not None and split.jpeg is not None
        self._files, self._shapes, self._jpeg = split.files, split.shapes, split.jpeg

    def find(self, index: int) -> Found:
        height, width, _ = self._shapes[index].tolist()
        pixels = None if self._jpeg[index] else _read_again(self._files[index], self._shapes[index])
        return Found(index, height, width, pixels)


class Unchecked:
    """Photos that are checked when they are met first.

    The photo after a bad one takes its place. Which photos are bad depends on the files alone, so an epoch is still the
    same after every start.
    """

    def __init__(self, split: Split) -> None:
        assert split.files is not None
        self._split, self._files = split, split.files
        self._shapes = np.zeros((len(split), 2), np.int32)
        self._jpeg = np.zeros(len(split), bool)
        self._bad: dict[int, str] = {}
        self._lock = threading.Lock()

    def find(self, index: int) -> Found:
        for step in range(len(self._files)):
            number = (index + step) % len(self._files)
            if number in self._bad:
                continue
            if self._jpeg[number]:
                height, width = self._shapes[number].tolist()
                return Found(number, height, width, None)
            try:
                photo, _ = images.read(self._files[number])
            except ValueError as error:
                self._leave_out(number, str(error))
                continue
            height, width, _ = photo.pixels.shape
            self._shapes[number] = height, width
            self._jpeg[number] = photo.jpeg  # last: other threads read the shape if it is set
            return Found(number, height, width, photo.pixels)
        raise EdgeclsError("no image can be used", where=escape(self._files[index]))

    def _leave_out(self, number: int, reason: str) -> None:
        split = self._split
        with self._lock:
            if number in self._bad:
                return
            self._bad[number] = reason
            split.bad.append((split.names[number], reason))
            if len(self._bad) > split.bad_allowed:
                raise EdgeclsError(
                    f"{len(self._bad)} of {len(split)} images cannot be used, more than data.max_bad_fraction allows;"
                    f" the last: {split.names[number]}: {reason}",
                    fix="remove or repair them, or raise the limit",
                )


def photos(split: Split, cache: bool = True) -> Photos:
    """The photos of a split, from memory where they fit and ``cache`` is set."""
    if split.images is not None or (cache and split.in_memory and split.checked):
        return Memory(split)
    return Files(split) if split.checked else Unchecked(split)


def _decode_all(split: Split) -> np.ndarray:
    """The pixels of all images of a split, one image after the other: uint8 [sum of H * W * C]."""
    if split.images is not None:
        return split.images.reshape(-1)
    assert split.files is not None
    files, stops = split.files, np.cumsum(split.sizes)
    flat = np.empty(stops[-1] if len(files) else 0, np.uint8)

    def decode(i: int) -> None:
        image = _read_again(files[i], split.shapes[i])
        flat[stops[i] - image.size : stops[i]] = image.reshape(-1)

    with ThreadPoolExecutor(images.threads()) as pool:
        for _ in pool.map(decode, range(len(files))):
            pass
    return flat


def _read_again(file: str, shape: np.ndarray) -> np.ndarray:
    """Read a file that was good at the start."""
    try:
        image = images.read_photo(file)
    except ValueError as error:
        raise EdgeclsError(
            f"an image that was good at the start cannot be read: {error}", where=escape(file)
        ) from None
    if image.shape != tuple(shape):
        raise EdgeclsError("an image was changed since the start", where=escape(file), fix="start again")
    return image
