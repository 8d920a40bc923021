"""Image files: decoding them to RGB, and naming the ones that cannot be decoded. No TensorFlow.

JPEG (gray, color, CMYK), PNG, GIF (first frame), BMP, WebP, TIFF and the other formats of Pillow are read. Palettes
become color, 1-bit images become gray, 16-bit gray is scaled to 8 bits, transparent pixels are put on white, and the
EXIF orientation is applied. Images above ``MAX_PIXELS`` or ``MAX_RATIO`` and floating point images are refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from edgecls.files import atomic, cache_dir
from edgecls.text import first_line

# Pillow warns of photographs above its own limit of pixels and of odd EXIF data. Files that cannot be used are named
# by the errors of this module. The filter is set once: changing filters around a call is not safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")

MAX_PIXELS = 2**27
"""134 million: a photograph of 108 megapixels passes, a decompression bomb does not."""
MAX_RATIO = 100
"""Of the long to the short side: a strip of 1 x 100,000 pixels would need 77 GB once its short side is 256."""

_EXIF_ORIENTATION = 0x0112
_BLOCK = 512  # files from one report of progress to the next


class Info(NamedTuple):
    """Facts about an image file, found by decoding it."""

    height: int
    width: int
    channels: int
    """1 if the file's format holds gray values only, else 3."""
    jpeg: bool
    """A gray or YCbCr JPEG that needs no rotation. TensorFlow's decoder gives the same pixels as Pillow for it, and can
    decode a window of it alone."""
    digest: str
    """Hash of the file's bytes: copies of a file have equal digests."""


def read_file(path: str | Path) -> bytes:
    """The content of a regular file; a pipe or device is not opened, because reading it may never end.

    Raises:
        OSError: It cannot be read.
        ValueError: It is a folder, a pipe, a socket or a device.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
        raise ValueError("not a file")
    return Path(path).read_bytes()


def read_photo(path: str | Path) -> np.ndarray:
    """Read and decode a file, as ``decode`` does.

    Raises:
        ValueError: It cannot be read or decoded; the text is the reason, without the name.
    """
    return _read(path)[0]


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
    """Decode one image.

    Args:
        data: The file's content.

    Returns:
        uint8 [height, width, 1 or 3], 1 if the format holds gray values only.

    Raises:
        ValueError: It is no image, damaged, too large or of an unsupported kind; the text says which.

    Example:
        >>> decode(Path("photo.jpg").read_bytes()).shape  # doctest: +SKIP
        (480, 640, 3)
    """
    return _decode(data)[0]


def decode_rgb(data: bytes) -> np.ndarray:
    """Decode one image as ``decode`` does, always to uint8 [height, width, 3]."""
    image = decode(data)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _decode(data: bytes) -> tuple[np.ndarray, bool]:
    """The pixels, and ``Info.jpeg``."""
    if not data:
        raise ValueError("empty file")
    try:
        image: Image.Image = Image.open(io.BytesIO(data))
        if image.width * image.height > MAX_PIXELS:
            size = f"{image.width}x{image.height}"
            raise ValueError(f"{size} pixels are more than the {MAX_PIXELS / 1e6:.0f} million allowed")
        if max(image.size) > MAX_RATIO * min(image.size):
            raise ValueError(f"one side of {image.width}x{image.height} is over {MAX_RATIO} times the other")
        image.load()
        turned = image.getexif().get(_EXIF_ORIENTATION, 1) not in (0, 1)
        jpeg = image.format == "JPEG" and image.mode in ("L", "RGB") and not turned
        if turned:
            image = ImageOps.exif_transpose(image)
        return _pixels(image), jpeg
    except Image.UnidentifiedImageError:
        raise ValueError("not an image") from None
    except Image.DecompressionBombError:
        raise ValueError(f"more than the {MAX_PIXELS / 1e6:.0f} million pixels allowed") from None
    except ValueError as error:
        raise ValueError(first_line(error)) from None
    except Exception as error:  # Pillow's parsers raise a dozen types on damaged files
        raise ValueError(f"damaged image: {first_line(error)}") from None


def _read(path: str | Path) -> tuple[np.ndarray, bool, bytes]:
    """Pixels, ``Info.jpeg`` and content of a file; every failure is a ValueError."""
    try:
        data = read_file(path)
    except FileNotFoundError:
        raise ValueError("no such file") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    return *_decode(data), data


def _pixels(image: Image.Image) -> np.ndarray:
    mode = image.mode
    if mode == "F":
        raise ValueError("floating point images are not supported")
    if mode.startswith("I"):  # 16-bit gray, also where Pillow widens it to 32
        values = np.asarray(image).astype(np.int64)
        return np.clip((values + 128) // 257, 0, 255).astype(np.uint8)[..., None]
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image).convert("RGB")
    elif mode in ("1", "L"):
        return np.asarray(image.convert("L"))[..., None]
    return np.asarray(image.convert("RGB"))


def inspect(path: str | Path) -> Info | str:
    """Decode a file; returns what it is, or the reason why it cannot be used."""
    try:
        pixels, jpeg, data = _read(path)
    except ValueError as error:
        return str(error)
    height, width, channels = pixels.shape
    return Info(height, width, channels, jpeg, hashlib.blake2b(data, digest_size=16).hexdigest())


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
    cached = _read_cache(cache)
    keys = [_key(path) for path in files]
    results: list[Info | str | None] = [
        _from_cache(cached.get(p), k) for p, k in zip(files, keys, strict=True)
    ]
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
            rows = {p: [k, r] for p, k, r in zip(files, keys, results, strict=True) if k and r is not None}
            _write_cache(cache, {**cached, **rows})
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


_CACHE_VERSION = 2  # raise when inspect() judges differently


def _key(path: str) -> list[int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116  # called for every file: Path would double the time
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _from_cache(row: list | None, key: list[int] | None) -> Info | str | None:
    if row is None or key is None or row[0] != key:
        return None
    return row[1] if isinstance(row[1], str) else Info(*row[1])


def _read_cache(path: Path | None) -> dict[str, list]:
    try:
        stored = json.loads(path.read_text("utf-8")) if path is not None else {}
        return stored["files"] if stored.get("version") == _CACHE_VERSION else {}
    except (OSError, ValueError, KeyError, AttributeError):
        return {}  # no cache, or a damaged one: every file is read again


def _write_cache(path: Path, files: dict[str, list]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary:
            Path(temporary).write_text(json.dumps({"version": _CACHE_VERSION, "files": files}), "utf-8")
    except Exception:  # training goes on where the cache folder is read-only or full
        pass
