"""Single changes of color and geometry that the policies choose from: uint8 [H, W, 3] to uint8 [H, W, 3].

Each takes an amount and a fill color, and is the identity at the amount that its docstring names. They compute what
Pillow computes, to the differences that ``tests/test_transforms.py`` states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

Color = Sequence[int]
"""Of pixels that come from outside the image, 0..255."""
Transform = Callable[[np.ndarray, float, Color], np.ndarray]

_RAMP = np.arange(256, dtype=np.float64)
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow and OpenCV turn RGB into gray
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13  # Pillow's SMOOTH
_CENTER = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]])


def identity(image: np.ndarray, amount: float, fill: Color) -> np.ndarray:
    """Nothing."""
    return image


def shear_x(image: np.ndarray, amount: float, fill: Color) -> np.ndarray:
    """Shift each row by ``amount`` times its distance from the top; 0 is the identity."""
    return _warp(image, [[1, amount, amount / 2], [0, 1, 0]], fill)


def shear_y(image: np.ndarray, amount: float, fill: Color) -> np.ndarray:
    """Shift each column by ``amount`` times its distance from the left; 0 is the identity."""
    return _warp(image, [[1, 0, 0], [amount, 1, amount / 2]], fill)


def translate_x(image: np.ndarray, amount: float, fill: Color) -> np.ndarray:
    """Shift sideways by a share of the width; 0 is the identity."""
    return _warp(image, [[1, 0, amount * image.shape[1]], [0, 1, 0]], fill)


def translate_y(image: np.ndarray, amount: float, fill: Color) -> np.ndarray:
    """Shift up or down by a share of the height; 0 is the identity."""
    return _warp(image, [[1, 0, 0], [0, 1, amount * image.shape[0]]], fill)


def rotate(image: np.ndarray, amount: float, fill: Color) -> np.ndarray:
    """Turn around the center by degrees, counter-clockwise; 0 is the identity."""
    height, width = image.shape[:2]
    return _warp(image, cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -amount, 1.0), fill)


def brightness(image: np.ndarray, amount: float, fill: Color) -> np.ndarray:
    """Away from black (above 0) or toward it; 0 is the identity, -1 black."""
    return cv2.LUT(image, _clipped(_RAMP * (1 + amount)))


def contrast(image: np.ndarray, amount: float, fill: Color) -> np.ndarray:
    """Away from the mean gray (above 0) or toward it; 0 is the identity, -1 all of that gray."""
    mean = int(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0] + 0.5)
    return cv2.LUT(image, _clipped(mean + (1 + amount) * (_RAMP - mean)))


def color(image: np.ndarray, amount: float, fill: Color) -> np.ndarray:
    """Saturation: away from each pixel's gray (above 0) or toward it; 0 is the identity, -1 gray."""
    return cv2.transform(image, (1 + amount) * np.eye(3) - amount * _LUMA)


def sharpness(image: np.ndarray, amount: float, fill: Color) -> np.ndarray:
    """Away from the smoothed image (above 0) or toward it; 0 is the identity, -1 smooth. The rim stays."""
    kernel = (1 + amount) * _CENTER - amount * _SMOOTH
    sharp = cv2.filter2D(image, -1, kernel)
    for rim in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        sharp[rim] = image[rim]
    return sharp


def posterize(image: np.ndarray, amount: float, fill: Color) -> np.ndarray:
    """Keep the highest bits of each value, ``amount`` without its fraction; 8 is the identity, 0 black."""
    return cv2.bitwise_and(image, np.full_like(image, 256 - 2 ** (8 - int(amount))))


def solarize(image: np.ndarray, amount: float, fill: Color) -> np.ndarray:
    """Invert values from ``amount`` on; 256 is the identity, 0 inverts all."""
    return cv2.LUT(image, np.where(amount > _RAMP, _RAMP, 255 - _RAMP).astype(np.uint8))


def invert(image: np.ndarray, amount: float, fill: Color) -> np.ndarray:
    """The negative, whatever the amount."""
    return cv2.bitwise_not(image)


def autocontrast(image: np.ndarray, amount: float, fill: Color) -> np.ndarray:
    """Stretch each channel to 0..255; the result counts ``amount``, the image the rest. 0 is the identity."""
    rows = image.reshape(len(image), -1)  # NumPy is fast along long rows
    low = rows.min(0).reshape(-1, 3).min(0)[:, None].astype(int)
    high = rows.max(0).reshape(-1, 3).max(0)[:, None].astype(int)
    stretched = _clipped((_RAMP - low) * (255 / np.maximum(high - low, 1)))
    return _by_channel(image, amount, np.where(high > low, stretched, _RAMP))


def equalize(image: np.ndarray, amount: float, fill: Color) -> np.ndarray:
    """Equalize each channel's histogram; the result counts ``amount``, the image the rest. 0 is the identity."""
    histograms = [cv2.calcHist([image], [channel], None, [256], [0, 256]) for channel in range(3)]
    counts = np.reshape(histograms, (3, 256)).astype(int)
    highest = 255 - (counts[:, ::-1] > 0).argmax(1)
    step = ((image.shape[0] * image.shape[1] - counts[range(3), highest]) // 255)[:, None]
    below = counts.cumsum(1) - counts
    equalized = np.minimum((step // 2 + below) // np.maximum(step, 1), 255)
    # The step is 0 where one value has nearly all pixels.
    return _by_channel(image, amount, np.where(step > 0, equalized, _RAMP))


def gray(image: np.ndarray) -> np.ndarray:
    """All three channels the luma."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur; ``sigma`` in pixels, above 0."""
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)


def hue(image: np.ndarray, amount: float) -> np.ndarray:
    """Turn the color circle by ``amount`` times 360 degrees."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(amount * 256) % 256)  # wraps around
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


TRANSFORMS: dict[str, Transform] = {
    each.__name__: each
    for each in (
        identity, shear_x, shear_y, translate_x, translate_y, rotate, brightness, contrast, color, sharpness,
        posterize, solarize, invert, autocontrast, equalize,
    )
}  # fmt: skip
"""What a policy may choose, by name."""


def _warp(image: np.ndarray, matrix: Sequence[Sequence[float]] | np.ndarray, fill: Color) -> np.ndarray:
    """Take each pixel from where ``matrix`` says (x, y, 1 of the result to x, y of the image), bilinearly."""
    return cv2.warpAffine(
        image,
        np.asarray(matrix, np.float64),
        image.shape[1::-1],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=tuple(fill),
    )


def _clipped(values: np.ndarray) -> np.ndarray:
    """As Pillow makes bytes of numbers: clipped, without their fraction."""
    return np.clip(values, 0, 255).astype(np.uint8)


def _by_channel(image: np.ndarray, share: float, tables: np.ndarray) -> np.ndarray:
    """Map each channel by its table, [3, 256]; the new value counts ``share``, the old one the rest."""
    mixed = np.rint(_RAMP + share * (tables - _RAMP)).astype(np.uint8)
    return cv2.LUT(image, np.ascontiguousarray(mixed.T)[None])
