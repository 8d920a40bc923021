"""The bytes of an image file to RGB or gray pixels, as a person sees them. No TensorFlow.

JPEG (gray, color, CMYK, YCCK), PNG, GIF, BMP, WebP, TIFF and the other formats of Pillow are read, whatever the file's
name ends in. Animations give their first frame. Palettes become color, 1-bit images become gray, transparent pixels are
put on white, and the EXIF orientation is applied.

Samples of more than 8 bits are scaled by what the file says or holds: 12-bit values in 16-bit samples, as cameras and
microscopes write them, would be nearly black otherwise. Images above ``MAX_PIXELS`` are averaged down by a whole factor.
Floating point images and those above ``REFUSED_PIXELS`` are refused.
"""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps

from edgecls.text import first_line

# Pillow warns of photographs above its own limit of pixels and of odd EXIF data. Files that cannot be used are named
# by the errors of this module. The filter is set once: changing filters around a call is not safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
Image.MAX_IMAGE_PIXELS = None  # REFUSED_PIXELS takes its place

MAX_PIXELS = 2**26
"""67 million: larger images are averaged down to fewer, because a network sees a small part of their detail."""
REFUSED_PIXELS = 2**29
"""537 million: more is taken for a damaged header or a decompression bomb."""

_LARGE = 2**24  # pixels above which images are decoded one at a time: threads would multiply the memory
_large = threading.Lock()

_ORIENTATION = 0x0112  # EXIF and TIFF tags
_BITS_PER_SAMPLE, _SAMPLES, _MAX_SAMPLE, _SAMPLE_FORMAT = 258, 277, 281, 339
_SIGNED = 2
_DEPTHS = (8, 10, 12, 14, 16)  # bits that sensors have
_REDUCED = "over {:.0f} million pixels, averaged down"


class Photo(NamedTuple):
    """A decoded image."""

    pixels: np.ndarray
    """uint8 [height, width, 1 or 3], 1 if the format holds gray values only."""
    jpeg: bool
    """A gray or YCbCr JPEG that needs no rotation. TensorFlow's decoder gives the same pixels as Pillow for it, and can
    decode a window of it alone."""
    note: str
    """What was assumed about its values or its size; empty: nothing."""


def decode(data: bytes, most: int | None = None) -> Photo:
    """Decode one image.

    Args:
        data: The file's content.
        most: Images of more pixels are refused before they are decoded; None: ``REFUSED_PIXELS``.

    Raises:
        ValueError: It is no image, damaged, far too large or of an unsupported kind; the text says which.

    Example:
        >>> decode(Path("photo.jpg").read_bytes()).pixels.shape  # doctest: +SKIP
        (480, 640, 3)
    """
    if not data:
        raise ValueError("empty file")
    try:
        image: Image.Image = Image.open(io.BytesIO(data))
        with _turn(image.width * image.height):
            return _decode(image, data, REFUSED_PIXELS if most is None else most)
    except Image.UnidentifiedImageError:
        raise ValueError("not an image") from None
    except ValueError as error:
        raise ValueError(first_line(error)) from None
    except MemoryError:
        raise ValueError("too large for the memory") from None
    except Exception as error:  # Pillow's parsers raise a dozen types on damaged files
        raise ValueError(f"damaged image: {first_line(error)}") from None


@contextlib.contextmanager
def _turn(pixels: int) -> Iterator[None]:
    """Large images wait for each other."""
    with _large if pixels > _LARGE else contextlib.nullcontext():
        yield


def _decode(image: Image.Image, data: bytes, most: int) -> Photo:
    width, height = image.size
    if not width * height:
        raise ValueError("no pixels")
    if width * height > most:
        raise ValueError(f"{width}x{height} pixels are more than the {most / 1e6:.0f} million allowed")
    kind, factor = image.format, 1
    while (width // factor) * (height // factor) > MAX_PIXELS:
        factor += 1
    if factor > 1:
        image.draft(
            None, (width // factor, height // factor)
        )  # a JPEG is decoded smaller, in its frequencies
    image.load()
    turned = image.getexif().get(_ORIENTATION, 1) not in (0, 1)
    jpeg = kind == "JPEG" and image.mode in ("L", "RGB") and not turned and factor == 1
    image, note = _eight_bits(image, data)
    while image.width * image.height > MAX_PIXELS:
        image = (image.convert("RGBA") if image.mode in ("P", "PA") else image).reduce(2)
    if turned:
        image = ImageOps.exif_transpose(image)
    notes = (note, _REDUCED.format(MAX_PIXELS / 1e6) if factor > 1 else "")
    return Photo(_pixels(image), jpeg, "; ".join(filter(None, notes)))


def _pixels(image: Image.Image) -> np.ndarray:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image).convert("RGB")
    elif image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))[..., None]
    return np.asarray(image.convert("RGB"))


# More than 8 bits ------------------------------------------------------------------------------------------------


def _eight_bits(image: Image.Image, data: bytes) -> tuple[Image.Image, str]:
    """The image with samples of 8 bits, and what was assumed about its own."""
    if image.mode == "F":
        raise ValueError("floating point images are not supported")
    values = np.asarray(image) if image.mode.startswith("I") else _deep_color(image, data)
    if values is None:
        return image, ""
    if image.mode == "I" and image.format == "TIFF" and _tag(image, _SAMPLE_FORMAT) != _SIGNED:
        values = values.view(np.uint32)
    top, note = _top(values, _said(image, data))
    scaled = np.rint(values.clip(0, top) * (255 / top)).astype(np.uint8)
    result = Image.fromarray(scaled)
    result.getexif().update(image.getexif())  # its orientation
    return result, note


def _top(values: np.ndarray, said: int) -> tuple[int, str]:
    """The value that is white, and a note where that is not the largest of 16 bits.

    The file's word counts where no value is above it. Else it is the smallest depth of a sensor that holds all values,
    and for more than 16 bits the largest value.
    """
    largest = max(int(values.max()), 1)
    if said >= largest:
        top = said
    else:
        top = next((2**bits - 1 for bits in _DEPTHS if largest < 2**bits), largest)
    if top > 2**16 - 1:
        return top, "integers of more than 16 bits, scaled by the largest value"
    bits = top.bit_length()
    return top, "" if bits == 16 else f"{bits}-bit values in {8 * values.dtype.itemsize}-bit samples, scaled"


def _said(image: Image.Image, data: bytes) -> int:
    """The largest possible value by what the file says; 0: it says nothing."""
    if image.format == "TIFF":
        bits = _tag(image, _BITS_PER_SAMPLE)
        return _tag(image, _MAX_SAMPLE) or (2**bits - 1 if bits not in (8, 16, 32) else 0)
    start = data.find(b"sBIT", 0, 4096)  # PNG: the bits that count
    if image.format == "PNG" and start > 0:
        (length,) = struct.unpack(">I", data[start - 4 : start])
        return 2 ** max(data[start + 4 : start + 4 + min(length, 4)], default=0) - 1
    return 0


def _tag(image: Image.Image, number: int) -> int:
    value = getattr(image, "tag_v2", {}).get(number, 0)
    return int(max(value)) if isinstance(value, tuple) else int(value)


def _deep_color(image: Image.Image, data: bytes) -> np.ndarray | None:
    """RGB or RGBA of 16 bits, of which Pillow keeps the upper 8; None for all other images."""
    png = image.format == "PNG" and data[24:26] in (
        b"\x10\x02",
        b"\x10\x04",
        b"\x10\x06",
    )  # depth, kind of color
    tiff = image.format == "TIFF" and _tag(image, _BITS_PER_SAMPLE) == 16 and _tag(image, _SAMPLES) >= 3
    if not (png or tiff):
        return None
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        return None
    return cv2.cvtColor(values, cv2.COLOR_BGRA2RGBA if values.shape[2] == 4 else cv2.COLOR_BGR2RGB)
