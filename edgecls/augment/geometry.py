"""Random crop, mirror and turns by 90 degrees: what every training starts from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from edgecls.augment.registry import Moment, operation

if TYPE_CHECKING:
    import numpy as np


def random_window(
    height: int, width: int, scale: Sequence[float], ratio: Sequence[float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draw the part of an image to keep (Szegedy et al., "Going deeper with convolutions", 2014).

    The aspect ratio is uniform in ``ratio``, the area is uniform in ``scale``. Where a window of the drawn ratio would
    be larger than the image, the limits of the area are lowered to the largest window that fits. So one draw is always
    enough (PaddleClas does the same).

    Args:
        height: Of the image, pixels.
        width: Of the image, pixels.
        scale: Lowest and highest share of the image's area, in (0, 1].
        ratio: Lowest and highest width / height of the window.
        rng: Gives the four random numbers.

    Returns:
        Top, left, height and width of the window, pixels.
    """
    draw = rng.random(4).tolist()
    aspect = ratio[0] + (ratio[1] - ratio[0]) * draw[0]
    largest = min(width / (height * aspect), height * aspect / width)
    low, high = min(scale[0], largest), min(scale[1], largest)
    area = (low + (high - low) * draw[1]) * height * width
    # Rounding may give 23.9999 for a window of exactly 24 pixels; the small term keeps it from becoming 23.
    rows = min(max(int(math.sqrt(area / aspect) + 1e-3), 1), height)
    columns = min(max(int(math.sqrt(area * aspect) + 1e-3), 1), width)
    return int(draw[2] * (height - rows + 1)), int(draw[3] * (width - columns + 1)), rows, columns


@operation(
    "flip",
    "image",
    Literal["none", "horizontal", "vertical", "both"],
    default="horizontal",
    description="mirror at random: left and right, top and bottom, or both",
)
def flip(image: np.ndarray, axis: str, rng: np.random.Generator, moment: Moment) -> np.ndarray:
    """Mirror with probability 1/2: left-right (``"horizontal"``), up-down (``"vertical"``), or each (``"both"``)."""
    import cv2

    sideways, upside_down = rng.random(2) < 0.5
    if sideways and axis != "vertical":
        cv2.flip(image, 1, image)
    if upside_down and axis != "horizontal":
        cv2.flip(image, 0, image)
    return image


@operation("rotate90", "image", bool, default=False, description="turn by a random multiple of 90 degrees")
def rotate90(image: np.ndarray, enabled: bool, rng: np.random.Generator, moment: Moment) -> np.ndarray:
    """Turn by 0, 90, 180 or 270 degrees, each with probability 1/4."""
    import cv2

    turns = (None, cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)
    turn = turns[rng.integers(4)]
    return image if turn is None else cv2.rotate(image, turn)
