"""Image files: reading them, and naming the ones that cannot be decoded. No TensorFlow."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgecls.data import decoding
from edgecls.data.members import file_of, span_of
from edgecls.files import atomic, cache_dir

_BLOCK = 512  # files from one report of progress to the next


class Info(NamedTuple):
    """Facts about an image file, found by decoding it."""

    height: int
    width: int
    channels: int
    """1 if the file's format holds gray values only, else 3."""
    jpeg: bool
    """``edgecls.data.decoding.Photo.jpeg``: a window of it can be decoded alone."""
    digest: str
    """Hash of the file's bytes: copies of a file have equal digests."""
    note: str = ""
    """What was assumed about its values or its size; empty: nothing."""


def read_file(path: str | Path) -> bytes:
    """The content of a regular file or of a member (``edgecls.data.members``).

    A pipe or a device is not opened, because reading it may never end.

    Raises:
        OSError: It cannot be read.
        ValueError: It is a folder, a pipe, a socket or a device.
    """
    file, span = file_of(path), span_of(path)
    if not stat.S_ISREG(os.stat(file).st_mode):  # noqa: PTH116
        raise ValueError("not a file")
    # Path takes longer, and so does a buffer: this is done for every image.
    with open(file, "rb", buffering=0 if span is None else -1) as source:  # noqa: PTH123
        if span is None:
            return source.read()
        source.seek(span[0])
        return source.read(span[1])


def glance(path: str | Path) -> int | str:
    """The size of a file in bytes, or the reason why it cannot be an image; it is not opened."""
    try:
        status = os.stat(file_of(path))  # noqa: PTH116  # called for every file: Path would double the time
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return "not a file"
    span = span_of(path)
    return (status.st_size if span is None else span[1]) or "empty file"


def read_photo(path: str | Path) -> np.ndarray:
    """Read and decode a file, as ``decode`` does.

    Raises:
        ValueError: It cannot be read or decoded; the text is the reason, without the name.
    """
    return read(path)[0].pixels


def read_all(
    files: Iterable[str | Path], prepare: Callable[[np.ndarray], np.ndarray]
) -> tuple[list[str], list[np.ndarray], list[tuple[str, str]]]:
    """Read every file that can be read, in threads, and name the others.

    Args:
        files: Paths.
        prepare: Called with each photo, uint8 [H, W, 1 or 3]; for example ``Preprocess.array``.

    Returns:
        The paths of the photos that were read, the result of ``prepare`` for each, and (path, reason) of the others.

    Example:
        >>> paths, pixels, skipped = read_all(list_photos("photos"), preprocess.array)  # doctest: +SKIP
    """
    paths = [os.fspath(path) for path in files]

    def prepared(path: str) -> np.ndarray | str:
        try:
            photo = read_photo(path)
        except ValueError as error:
            return str(error)
        return prepare(photo)

    with ThreadPoolExecutor(threads()) as pool:
        results = list(zip(paths, pool.map(prepared, paths), strict=True))
    read = [(path, pixels) for path, pixels in results if not isinstance(pixels, str)]
    skipped = [(path, reason) for path, reason in results if isinstance(reason, str)]
    return [path for path, _ in read], [pixels for _, pixels in read], skipped


def decode(data: bytes) -> np.ndarray:
    """Pixels of one image, uint8 [height, width, 1 or 3]; ``edgecls.data.decoding`` says how.

    Raises:
        ValueError: It is no image, damaged, far too large or of an unsupported kind; the text says which.
    """
    return decoding.decode(data).pixels


def content(path: str | Path) -> bytes:
    """``read_file`` with one kind of error.

    Raises:
        ValueError: It cannot be read, or is empty; the text is the reason, without the name.
    """
    try:
        data = read_file(path)
    except FileNotFoundError:
        raise ValueError("no such file") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if not data:
        raise ValueError("empty file")
    return data


def read(path: str | Path) -> tuple[decoding.Photo, bytes]:
    """Read and decode a file: the photo, and the file's content.

    Raises:
        ValueError: It cannot be read or decoded; the text is the reason, without the name.
    """
    data = content(path)
    return decoding.decode(data), data


def inspect(path: str | Path) -> Info | str:
    """Decode a file; returns what it is, or the reason why it cannot be used."""
    try:
        photo, data = read(path)
    except ValueError as error:
        return str(error)
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    height, width, channels = photo.pixels.shape
    return Info(height, width, channels, photo.jpeg, digest, photo.note)


def scan(
    files: Sequence[str],
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Info | str]:
    """``inspect`` every file, in threads.

    Args:
        files: Paths.
        cache: A file that keeps the results. Files whose path, size and time are unchanged are not read again.
        progress: Called with (done, all) after every 512 files.

    Returns:
        What ``inspect`` returns, for each file.
    """
    keys = [_key(path) for path in files]
    results = _from_cache(cache, files, keys)
    todo = [i for i, result in enumerate(results) if result is None]
    done = 0
    try:
        with ThreadPoolExecutor(threads()) as pool:
            while done < len(todo):
                block = todo[done : done + _BLOCK]
                for i, result in zip(block, pool.map(inspect, [files[i] for i in block]), strict=True):
                    results[i] = result
                done += len(block)
                if progress is not None:
                    progress(done, len(todo))
    finally:  # what an interrupted check has found is kept
        if cache is not None and done:
            rows = {
                path: key + (("", *result) if isinstance(result, Info) else (result, *_NO_INFO))
                for path, key, result in zip(files, keys, results, strict=True)
                if key is not None and result is not None
            }
            _write_cache(cache, {**_read_cache(cache), **rows})
    return [result for result in results if result is not None]


def threads() -> int:
    """How many threads decode images: as many as there are cores that this process may use."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def cache_file(source: str) -> Path:
    """The file in the user's cache that keeps the results of ``scan`` for one source.

    Args:
        source: The source's absolute path, or its name where it has no path.
    """
    name = hashlib.blake2b(os.fsencode(source), digest_size=12).hexdigest()
    return cache_dir() / "scan" / f"{name}.json"


_CACHE_VERSION = 5  # raise when inspect() judges differently
_Key = tuple[int, int]  # size and time of a file
_Row = tuple[Any, ...]  # a key, the reason why the file cannot be used, and the fields of its Info
_NO_INFO = (None,) * len(Info._fields)


def _key(path: str) -> _Key | None:
    try:
        status = os.stat(file_of(path))  # noqa: PTH116  # called for every file: Path would double the time
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _from_cache(
    cache: Path | None, files: Sequence[str], keys: Sequence[_Key | None]
) -> list[Info | str | None]:
    rows = _read_cache(cache)
    return [
        (row[2] or Info(*row[3:])) if row is not None and row[:2] == key else None
        for row, key in zip(map(rows.get, files), keys, strict=True)
    ]


def _read_cache(path: Path | None) -> dict[str, _Row]:
    """The rows of a cache by the paths of their files; it has columns, because a list for each file is slow to read."""
    try:
        stored = json.loads(path.read_text("utf-8")) if path is not None else {}
        if stored.get("version") != _CACHE_VERSION:
            return {}
        return dict(zip(stored["files"], zip(*stored["columns"], strict=True), strict=True))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return {}  # no cache, or a damaged one: every file is read again


def _write_cache(path: Path, rows: dict[str, _Row]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = {"files": list(rows), "columns": list(zip(*rows.values(), strict=True))}
        with atomic(path) as temporary:
            Path(temporary).write_text(json.dumps({"version": _CACHE_VERSION, **columns}), "utf-8")
    except Exception:  # training goes on where the cache folder is read-only or full
        pass
