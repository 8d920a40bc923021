"""Image files: decoding to RGB and finding the ones that cannot be decoded. No TensorFlow.

Read are JPEG (grey, colour, CMYK), PNG, GIF (first frame), BMP, WebP and whatever else Pillow opens; palettes and
1-bit images become colour or grey, 16-bit grey is scaled to 8 bits, transparency is put on white, and the EXIF
orientation is applied. Images above ``MAX_PIXELS`` and floating point images count as unreadable.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from edgecls.files import atomic, cache_dir

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
)
MAX_PIXELS = 2**27
"""134 million: a photograph of 108 megapixels passes, a decompression bomb does not."""

_EXIF_ORIENTATION = 0x0112
_BLOCK = 512  # files between two reports of progress


class Info(NamedTuple):
    """What is known of an image file once it has been decoded."""

    height: int
    width: int
    channels: int
    """1 where every pixel is grey by format, else 3."""
    jpeg: bool
    """A grey or YCbCr JPEG that needs no turning: TensorFlow's decoder gives Pillow's pixels, and can crop early."""
    digest: str
    """Of the file's bytes: equal files have equal digests."""


def decode(data: bytes) -> np.ndarray:
    """Decode one image.

    Args:
        data: The file's content.

    Returns:
        uint8 [height, width, 1 or 3], 1 for images that are grey by format.

    Raises:
        ValueError: Not an image, torn, too large or of an unsupported kind; the text says which.
    """
    return _decode(data)[0]


def decode_rgb(data: bytes) -> np.ndarray:
    """``decode``, always uint8 [height, width, 3]."""
    image = decode(data)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _decode(data: bytes) -> tuple[np.ndarray, bool]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own, lower, limit of pixels; odd EXIF
            image: Image.Image = Image.open(io.BytesIO(data))
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.width}x{image.height}"
                raise ValueError(f"{size} pixels are more than the {MAX_PIXELS / 1e6:.0f} million allowed")
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
    except ValueError:
        raise
    except Exception as error:  # Pillow's parsers raise a dozen types on damaged files
        raise ValueError(f"torn image: {error}") from None


def _pixels(image: Image.Image) -> np.ndarray:
    mode = image.mode
    if mode == "F":
        raise ValueError("floating point images are not supported")
    if mode.startswith("I"):  # 16-bit grey, also where Pillow widens it to 32
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
    """Decode a file and say what it is, or, as text, why it cannot be used."""
    try:
        data = Path(path).read_bytes()
        pixels, jpeg = _decode(data)
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValueError as error:
        return str(error) if data else "empty file"
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
        cache: A file that keeps the results; files of the same path, size and time are not read again.
        progress: Called with (done, all) now and then.
    """
    known = _read_cache(cache)
    keys = [_key(path) for path in files]
    found: list[Info | str | None] = [_known(known.get(p), k) for p, k in zip(files, keys, strict=True)]
    todo = [i for i, result in enumerate(found) if result is None]
    done = 0
    try:
        with ThreadPoolExecutor(threads()) as pool:
            while done < len(todo):
                block = todo[done : done + _BLOCK]
                for i, result in zip(block, pool.map(inspect, [files[i] for i in block]), strict=True):
                    found[i] = result
                done += len(block)
                if progress is not None:
                    progress(done, len(todo))
    finally:  # what an interrupted check has found is kept
        if cache is not None and done:
            rows = {p: [k, r] for p, k, r in zip(files, keys, found, strict=True) if k and r is not None}
            _write_cache(cache, {**known, **rows})
    return [result for result in found if result is not None]


def threads() -> int:
    """Decoding threads: the cores this process may use."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def cache_file(source: str) -> Path:
    """The per-user file that remembers ``scan`` of one source, named by its absolute path or its name."""
    name = hashlib.blake2b(os.fsencode(source), digest_size=12).hexdigest()
    return cache_dir() / "scan" / f"{name}.json"


_CACHE_VERSION = 1  # raise when inspect() judges differently


def _key(path: str) -> list[int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116  # called for every file: Path would double the time
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _known(row: list | None, key: list[int] | None) -> Info | str | None:
    if row is None or key is None or row[0] != key:
        return None
    return row[1] if isinstance(row[1], str) else Info(*row[1])


def _read_cache(path: Path | None) -> dict[str, list]:
    try:
        stored = json.loads(path.read_text("utf-8")) if path is not None else {}
        return stored["files"] if stored.get("version") == _CACHE_VERSION else {}
    except (OSError, ValueError, KeyError, AttributeError):
        return {}  # no cache, or a damaged one: look again


def _write_cache(path: Path, files: dict[str, list]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary:
            Path(temporary).write_text(json.dumps({"version": _CACHE_VERSION, "files": files}), "utf-8")
    except Exception:  # a read-only or full home must not stop training
        pass
