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

import numpy as np
import tensorflow as tf

from edgecls.data import images
from edgecls.errors import EdgeclsError, UsageError
from edgecls.text import escape

# tf.image.resize anti-aliases by the same scaled kernels as Pillow, but without anti-aliasing it is slower than these.
_RESIZE = {
    "bilinear": lambda x, size: tf.raw_ops.ResizeBilinear(images=x, size=size, half_pixel_centers=True),
    "bicubic": lambda x, size: tf.raw_ops.ResizeBicubic(images=x, size=size, half_pixel_centers=True),
    "area": lambda x, size: tf.raw_ops.ResizeArea(images=x, size=size),
}


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
        if self.interpolation not in _RESIZE:
            names = ", ".join(_RESIZE)
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

    def decode(self, data: tf.Tensor, jpeg: tf.Tensor | bool = False) -> tf.Tensor:
        """Decode a file's bytes to uint8 [height, width, 3].

        Args:
            data: Scalar string.
            jpeg: ``images.Info.jpeg``: whether TensorFlow's decoder may be used, which runs without Python. For such
                files both decoders give the same pixels. Pillow decodes all others (see ``edgecls.data.images``).
        """
        if isinstance(jpeg, bool):
            return decode_jpeg(data) if jpeg else _decode_any(data)
        return tf.cond(jpeg, lambda: decode_jpeg(data), lambda: _decode_any(data))

    def resize_crop(self, image: tf.Tensor) -> tf.Tensor:
        """Resize the short side and cut the center: uint8 [H, W, C] to uint8 [size, size, C]."""
        shape = tf.shape(image)
        sides = tf.cast(shape[:2], tf.float64)
        # As int(round(side * short / shortest)): tf.round, as Python's, rounds halves to even.
        sides = tf.cast(tf.round(sides * (self.resize_short / tf.reduce_min(sides))), tf.int32)
        top = (sides - self.size) // 2
        image = self.resize(image, sides)
        return image[top[0] : top[0] + self.size, top[1] : top[1] + self.size]

    def resize(self, image: tf.Tensor, size: tf.Tensor | Sequence[int]) -> tf.Tensor:
        """Resize uint8 [H, W, C] to uint8 [size[0], size[1], C] by this interpolation."""
        if self.antialias:
            resized = tf.image.resize(image, size, self.interpolation, antialias=True)
        else:
            resized = _RESIZE[self.interpolation](image[None], size)[0]
        resized = tf.round(resized)
        if self.interpolation == "bicubic":  # may overshoot
            resized = tf.clip_by_value(resized, 0.0, 255.0)
        return tf.cast(resized, tf.uint8)

    def array(self, image: np.ndarray) -> np.ndarray:
        """An image in memory, uint8 [H, W, 1 or 3] or [H, W], to the network's pixels uint8 [size, size, 3]."""
        image = image[..., None] if image.ndim == 2 else image
        pixels = self.resize_crop(tf.convert_to_tensor(image)).numpy()
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


# Pillow uses the accurate DCT, too. Every file was decoded once before training, so a file that is damaged later must not
# end a long training.
_JPEG = {
    "channels": 3,
    "dct_method": "INTEGER_ACCURATE",
    "try_recover_truncated": True,
    "acceptable_fraction": 0.01,
}


def decode_jpeg(data: tf.Tensor, window: tf.Tensor | None = None) -> tf.Tensor:
    """Decode a plain JPEG to uint8 [H, W, 3], or only a window [top, left, height, width] of it."""
    if window is None:
        return tf.io.decode_jpeg(data, **_JPEG)
    return tf.io.decode_and_crop_jpeg(data, window, **_JPEG)


def _decode_any(data: tf.Tensor) -> tf.Tensor:
    # Called eagerly, TensorFlow hands over an array of one object; in a pipeline, the bytes.
    image = tf.numpy_function(lambda x: images.decode_rgb(np.asarray(x, object).item()), [data], tf.uint8)
    return tf.ensure_shape(image, [None, None, 3])
