"""The one definition of the pixels a network sees.

Training without random crops, evaluation, calibration, the exported file and the phone all use the same steps: decode
to 8-bit RGB, resize the short side, cut the center, round to 8 bits. The networks take those pixels (0..255) and
normalize inside.

The resize samples at half-pixel centers. It does so without anti-aliasing, as OpenCV's ``INTER_LINEAR`` and the published
figures of PaddleClas do, or with it, as Pillow does. ``bicubic`` is Keys' kernel with a = -0.5 (OpenCV's has -0.75),
``area`` is the mean of the covered area. docs/preprocessing.md has the same in the words of other libraries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from PIL import Image

from edgecls.data import images
from edgecls.errors import EdgeclsError, UsageError
from edgecls.quiet import import_tensorflow
from edgecls.text import escape

INTERPOLATIONS = ("bilinear", "bicubic", "area")
_STRIP = 100  # ratio of the sides above which only the middle of a photo is resized
_LARGE = 2**22  # pixels above which a bilinear resize reads only the pixels that it needs


class Published(Protocol):
    """The evaluation settings of a catalog entry."""

    @property
    def input_size(self) -> int: ...
    @property
    def resize_short(self) -> int | None: ...
    @property
    def interpolation(self) -> str: ...
    @property
    def mean(self) -> Sequence[float]: ...
    @property
    def std(self) -> Sequence[float]: ...


class Settings(Protocol):
    """What a recipe says about a network's input; None: as published."""

    @property
    def input_size(self) -> int | None: ...
    @property
    def resize_short(self) -> int | None: ...
    @property
    def mean(self) -> Sequence[float] | None: ...
    @property
    def std(self) -> Sequence[float] | None: ...


@dataclass(frozen=True)
class Preprocess:
    """How a photo becomes the pixels of a network.

    Args:
        size: Side of the square input, pixels.
        resize_short: Short side before the center crop, pixels, at least ``size``; None: ``size * 256 / 224``.
        interpolation: ``"bilinear"``, ``"bicubic"`` or ``"area"``.
        mean: RGB mean of pixel / 255. The network normalizes inside; this is for the metadata.
        std: RGB standard deviation of pixel / 255, likewise.
        antialias: Where a photo gets smaller, widen the kernel so that every pixel counts, as Pillow does.
            ``"area"`` averages all pixels in any case.

    Raises:
        UsageError: ``resize_short`` below ``size`` or an unknown interpolation.

    Example:
        >>> preprocess = Preprocess(size=224, resize_short=256)
        >>> preprocess.load("photo.jpg").shape
        (224, 224, 3)
    """

    size: int
    resize_short: int = None  # type: ignore[assignment]  # an int once constructed
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    antialias: bool = False

    def __post_init__(self) -> None:
        if self.resize_short is None:
            object.__setattr__(self, "resize_short", round(self.size * 256 / 224))
        object.__setattr__(self, "mean", tuple(map(float, self.mean)))
        object.__setattr__(self, "std", tuple(map(float, self.std)))
        if self.interpolation not in INTERPOLATIONS:
            names = ", ".join(INTERPOLATIONS)
            raise UsageError(f"unknown interpolation {self.interpolation!r}", fix=f"one of {names}")
        if self.resize_short < self.size:
            raise UsageError(
                f"resize_short {self.resize_short} is smaller than the input of {self.size} pixels",
                fix=f"set it to {self.size} or more",
            )

    @classmethod
    def from_recipe(cls, entry: Published, model: Settings, antialias: bool = False) -> Preprocess:
        """The settings of a catalog entry, changed by the recipe's ``model`` (or ``teacher``) section.

        Another input size scales the short side as published (``resize_short / input_size`` of the entry).

        Args:
            entry: Of the catalog.
            model: The recipe's section.
            antialias: The recipe's ``data.antialias``.
        """
        size = model.input_size or entry.input_size
        short = getattr(model, "resize_short", None)
        if short is None and entry.resize_short:
            short = round(size * entry.resize_short / entry.input_size)
        return cls(
            size=size,
            resize_short=short,  # type: ignore[arg-type]
            interpolation=entry.interpolation,
            mean=tuple(entry.mean if model.mean is None else model.mean),
            std=tuple(entry.std if model.std is None else model.std),
            antialias=antialias,
        )

    def resize_crop(self, image: np.ndarray) -> np.ndarray:
        """Resize the short side and cut the center: uint8 [H, W, C] to uint8 [size, size, C].

        Of a long strip only the middle is resized, so that a photo of 1 x 100,000 pixels takes no more memory than
        others do. Its pixels are within a quarter of a pixel of those of the whole.
        """
        shortest, longest = min(image.shape[:2]), max(image.shape[:2])
        scale = self.resize_short / shortest
        height, width = (round(side * scale) for side in image.shape[:2])  # round: halves to even
        top, left = (height - self.size) // 2, (width - self.size) // 2
        if longest > _STRIP * shortest:  # cut at multiples of the short side: they stay whole pixels
            first = max(top, left) // self.resize_short - 1
            cut = slice(first * shortest, (first + 4) * shortest)
            moved = first * self.resize_short
            if height > width:
                image, height, top = image[cut], 4 * self.resize_short, top - moved
            else:
                image, width, left = image[:, cut], 4 * self.resize_short, left - moved
        resized = self.resize(image, [height, width])
        return resized[top : top + self.size, left : left + self.size]

    def resize(self, image: np.ndarray, size: Sequence[int]) -> np.ndarray:
        """Resize uint8 [H, W, C] to uint8 [size[0], size[1], C] by this interpolation."""
        height, width = size
        if self.antialias and self.interpolation != "area":
            return _pillow(image, height, width, self.interpolation)
        if self.interpolation != "bilinear":
            return _tensorflow(image, height, width, self.interpolation)
        if image.shape[0] * image.shape[1] > max(_LARGE, height * width):
            return _four_pixels(image, height, width)
        # In floating point, because OpenCV's resize of bytes is off by one level in a tenth of the pixels.
        resized = cv2.resize(image.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        return cv2.convertScaleAbs(resized).reshape(height, width, -1)  # rounds halves to even

    def resize_window(self, image: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Resize a random crop, uint8 [H, W, 1 or 3], to uint8 [size, size, 3], into ``out`` if that is given.

        Bilinear without anti-aliasing is computed in bytes: twice as fast as ``resize`` and within one level of it. A
        training sees each crop once, so that level is less than what the crop itself changes.
        """
        if self.antialias or self.interpolation != "bilinear":
            resized = self.resize(image, (self.size, self.size))
            out = np.empty((self.size, self.size, 3), np.uint8) if out is None else out
            out[:] = resized
            return out
        if image.shape[2] == 1:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
        return cv2.resize(image, (self.size, self.size), out, interpolation=cv2.INTER_LINEAR)

    def array(self, image: np.ndarray) -> np.ndarray:
        """An image in memory, uint8 [H, W, 1 or 3] or [H, W], to the network's pixels uint8 [size, size, 3]."""
        image = image[..., None] if image.ndim == 2 else image
        pixels = self.resize_crop(image)
        return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels

    def load(self, path: str | Path) -> np.ndarray:
        """A file to the network's pixels, uint8 [size, size, 3].

        Raises:
            EdgeclsError: The file is missing or no image that can be decoded.
        """
        try:
            photo = images.read_photo(path)
        except ValueError as error:
            raise EdgeclsError(f"cannot read the image: {error}", where=escape(str(path))) from None
        return self.array(photo)

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocess:
        """The inverse of ``to_dict``."""
        return cls(**values)


def _pillow(image: np.ndarray, height: int, width: int, kind: str) -> np.ndarray:
    photo = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    resized = photo.resize((width, height), Image.Resampling[kind.upper()])
    return np.asarray(resized).reshape(height, width, -1)


def _tensorflow(image: np.ndarray, height: int, width: int, kind: str) -> np.ndarray:
    import_tensorflow()  # here, because nothing else that prepares a photo for a .tflite file needs it
    import tensorflow as tf

    with tf.device("CPU:0"):
        if kind == "area":
            resized = tf.raw_ops.ResizeArea(images=image[None], size=[height, width])
        else:
            resized = tf.raw_ops.ResizeBicubic(
                images=image[None], size=[height, width], half_pixel_centers=True
            )
    return np.rint(resized[0]).clip(0, 255).astype(np.uint8)  # a bicubic kernel overshoots


def _four_pixels(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear from the four neighbors of each new pixel: no copy of a large photo is made."""

    def taps(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        at = (np.arange(new) + 0.5) * (old / new) - 0.5
        low = np.floor(at).astype(int)
        return low.clip(0, old - 1), (low + 1).clip(0, old - 1), (at - low).astype(np.float32)

    above, below, dy = taps(image.shape[0], height)
    near, far, dx = taps(image.shape[1], width)

    def row(index: np.ndarray) -> np.ndarray:
        left, right = (image[index[:, None], columns].astype(np.float32) for columns in (near, far))
        return left + (right - left) * dx[:, None]

    upper = row(above)
    return np.rint(upper + (row(below) - upper) * dy[:, None, None]).astype(np.uint8)
