"""Operations that hide parts of an image: Cutout, RandomErasing, HideAndSeek, GridMask.

They follow those on colors and shapes, and fill with the mean color, which normalization makes 0. Lengths in the
options are pixels of an image of 224 x 224: they scale with the image.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from edgecls._explain import Wrong
from edgecls._schema import Section
from edgecls.augment.registry import Moment, Range, check_range, operation

if TYPE_CHECKING:
    import numpy as np

_REFERENCE = 224  # pixels, the side of the images that lengths are given for
_TRIES = 100  # draws of a rectangle until one fits

Length = Annotated[float, Field(gt=0, le=2 * _REFERENCE)]
Probability = Annotated[float, Field(ge=0, le=1)]


class Cutout(Section):
    """Hide squares."""

    n_holes: int = Field(default=1, ge=1, le=1000, description="number of squares")
    length: Length = Field(default=112.0, description="side of a square, pixels at an input of 224")


@operation("cutout", "pixels", Cutout, paper="https://arxiv.org/abs/1708.04552")
def cutout(image: np.ndarray, options: Cutout, rng: np.random.Generator, moment: Moment) -> np.ndarray:
    """Hide ``n_holes`` squares. A center may be anywhere in the image, so a part of a square may be outside."""
    size = len(image)
    half = _pixels(options.length, size) / 2
    for y, x in rng.uniform(0, size, (options.n_holes, 2)):
        top, bottom = _clipped(y - half, y + half, size)
        left, right = _clipped(x - half, x + half, size)
        image[top:bottom, left:right] = moment.fill
    return image


class RandomErasing(Section):
    """Hide a rectangle of random size and shape."""

    probability: Probability = Field(default=0.5, description="share of the images that are changed")
    area: Range = Field(
        default=[0.02, 0.4], description="lowest and highest area of the rectangle, as a share of the image"
    )
    aspect: Range = Field(
        default=[0.3, 1 / 0.3], description="lowest and highest height / width of the rectangle"
    )
    spacing: Literal["log", "linear"] = Field(
        default="log",
        description="how the aspect is drawn; `log`: as many wide rectangles as high ones; `linear`: as the paper"
        " does, which makes about three of four high",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_range("area", self.area, 1)
        check_range("aspect", self.aspect, 100)
        longest = max(
            self.aspect[0], 1 / self.aspect[1], 1.0
        )  # squared side of the squarest rectangle of area 1
        if self.area[0] * longest > 1:
            raise Wrong("no rectangle of this area and aspect fits into an image", "area", "aspect")
        return self


@operation("random_erasing", "pixels", RandomErasing, paper="https://arxiv.org/abs/1708.04896")
def random_erasing(
    image: np.ndarray, options: RandomErasing, rng: np.random.Generator, moment: Moment
) -> np.ndarray:
    """Hide a rectangle that is inside the image as a whole: area and aspect are drawn until it fits."""
    size = len(image)
    if rng.random() >= options.probability:
        return image
    for _ in range(_TRIES):
        area = size * size * rng.uniform(options.area[0], options.area[1])
        low, high = options.aspect
        if options.spacing == "log":
            aspect = math.exp(rng.uniform(math.log(low), math.log(high)))
        else:
            aspect = rng.uniform(low, high)
        height = max(1, round(math.sqrt(area * aspect)))
        width = max(1, round(math.sqrt(area / aspect)))
        if height <= size and width <= size:
            top, left = rng.integers(size - height + 1), rng.integers(size - width + 1)
            image[top : top + height, left : left + width] = moment.fill
            break
    return image


class HideAndSeek(Section):
    """Hide cells of a grid, each with the same probability."""

    grids: list[Annotated[float, Field(ge=0, le=2 * _REFERENCE)]] = Field(
        default=[0.0, 16.0, 32.0, 44.0, 56.0],
        min_length=1,
        description="sides of a cell, pixels at an input of 224; each image draws one of them; 0: nothing is hidden",
    )
    probability: Probability = Field(default=0.5, description="share of the cells that are hidden")

    @model_validator(mode="after")
    def _visible(self) -> Self:
        if any(0 < side < 1 for side in self.grids):
            raise Wrong("a cell must be at least 1 pixel", "grids")
        return self


@operation("hide_and_seek", "pixels", HideAndSeek, paper="https://arxiv.org/abs/1811.02545")
def hide_and_seek(
    image: np.ndarray, options: HideAndSeek, rng: np.random.Generator, moment: Moment
) -> np.ndarray:
    """Divide the image into square cells and hide each with the same probability."""
    import numpy as np

    size = len(image)
    side = _pixels(options.grids[rng.integers(len(options.grids))], size)
    if side == 0:
        return image
    cell = (np.arange(size) / side).astype(int)  # of each row, and of each column
    hidden = rng.random((cell[-1] + 1, cell[-1] + 1)) < options.probability
    return _hide(image, hidden[cell][:, cell], moment.fill)


class GridMask(Section):
    """Hide a regular grid of squares."""

    d1: Length = Field(default=96.0, description="smallest period of the grid, pixels at an input of 224")
    d2: Length = Field(default=224.0, description="largest period of the grid, pixels at an input of 224")
    rotate: int = Field(
        default=1,
        ge=1,
        le=360,
        description="the grid is turned by whole degrees below this; 1: it is not turned",
    )
    ratio: float = Field(
        default=0.5, gt=0, lt=1, description="width of the bars between the squares, as a share of the period"
    )
    mode: Literal[0, 1] = Field(
        default=1,
        description="1: hide the squares, as in the paper; 0: hide the bars between them, PaddleClas' default",
    )
    prob: Probability = Field(default=1.0, description="share of the images that are changed, at its highest")
    growth: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.8,
        description="share of the epochs in which the probability grows to `prob`; 0: it is constant",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.d1 > self.d2:
            raise Wrong("d1 must not be above d2", "d1", "d2")
        return self


@operation("gridmask", "pixels", GridMask, paper="https://arxiv.org/abs/2001.04086")
def gridmask(image: np.ndarray, options: GridMask, rng: np.random.Generator, moment: Moment) -> np.ndarray:
    """Hide the squares of a grid, with a probability that grows from epoch to epoch."""
    import numpy as np

    size = len(image)
    progress = (moment.epoch + 1) / moment.epochs
    grown = min(1.0, progress / options.growth) if options.growth else 1.0
    if rng.random() >= options.prob * grown:
        return image
    period = _pixels(rng.uniform(options.d1, options.d2), size)
    angle = math.radians(rng.integers(options.rotate))
    down, across = rng.uniform(0, period, 2)
    middle = np.arange(size) + 0.5 - size / 2
    y, x = middle[:, None], middle[None, :]
    if angle:
        y, x = y * math.cos(angle) + x * math.sin(angle), x * math.cos(angle) - y * math.sin(angle)
    bar = options.ratio * period
    bars = ((y + down) % period < bar) | ((x + across) % period < bar)
    return _hide(image, ~bars if options.mode else bars, moment.fill)


def _pixels(length: float, size: int) -> float:
    """A length at 224 pixels as pixels of an image of this size."""
    return length * size / _REFERENCE


def _clipped(start: float, stop: float, size: int) -> tuple[int, int]:
    """Whole pixels of an interval, as far as they are in the image; at least one."""
    first = min(max(round(start), 0), size - 1)
    return first, min(max(round(stop), first + 1), size)


def _hide(image: np.ndarray, hidden: np.ndarray, fill: tuple[int, ...]) -> np.ndarray:
    """Set the pixels to ``fill`` where ``hidden``, bool [S, S], is true."""
    import cv2
    import numpy as np

    return cv2.copyTo(np.full_like(image, fill), hidden.astype(np.uint8), image)
