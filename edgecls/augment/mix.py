"""Operations that mix two images of a batch, and their labels in the same shares: Mixup and CutMix.

An operation is a function of an image and its partner. ``mix`` draws for each image on its own which operation it gets,
and the operation draws the share. So a batch holds many shares, and their average varies less than one share for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from edgecls._schema import Section
from edgecls.augment.registry import Operation, operation

if TYPE_CHECKING:
    import numpy as np

Draws = Callable[[str, int], "np.random.Generator"]
"""(name of a draw, position of an image in the batch) to the generator of both."""


class Mixing(Section):
    """Key of every operation that mixes two images."""

    probability: Annotated[float, Field(ge=0, le=1)] = Field(
        default=1.0,
        description="share of the images that are mixed so. An image is mixed once: where the operations that mix"
        " want more than 1 together, each gets its part of the images",
    )


class Mixup(Mixing):
    """Blend each image and its label with another one of the batch."""

    alpha: float = Field(
        default=0.2,
        gt=0,
        le=1000,
        description="the share of an image is drawn from Beta(alpha, alpha): the lower alpha, the closer the result"
        " is to one of the two",
    )


@operation("mixup", "batch", Mixup, paper="https://arxiv.org/abs/1710.09412")
def mixup(
    image: np.ndarray, partner: np.ndarray, options: Mixup, rng: np.random.Generator, out: np.ndarray
) -> float:
    """Write ``share * image + (1 - share) * partner`` into ``out``."""
    import cv2

    share = rng.beta(options.alpha, options.alpha)
    cv2.addWeighted(image, share, partner, 1 - share, 0, dst=out, dtype=cv2.CV_32F)
    return share


class CutMix(Mixing):
    """Paste a rectangle of another image of the batch into each, and mix the labels by its area."""

    alpha: float = Field(
        default=1.0,
        gt=0,
        le=1000,
        description="the area that the image keeps, before the rectangle is cut at the border, is drawn from"
        " Beta(alpha, alpha); PaddleClas has 0.2",
    )


@operation("cutmix", "batch", CutMix, paper="https://arxiv.org/abs/1905.04899")
def cutmix(
    image: np.ndarray, partner: np.ndarray, options: CutMix, rng: np.random.Generator, out: np.ndarray
) -> float:
    """Write the image into ``out`` and, over it, a square of the partner from the same place.

    The center may be anywhere, so a part of the square may be outside. The share counts the pixels that are left.
    """
    size = len(image)
    half = size * math.sqrt(1 - rng.beta(options.alpha, options.alpha)) / 2
    y, x = rng.uniform(0, size, 2)
    top, bottom, left, right = (
        min(max(round(edge), 0), size) for edge in (y - half, y + half, x - half, x + half)
    )
    out[...] = image
    out[top:bottom, left:right] = partner[top:bottom, left:right]
    return 1 - (bottom - top) * (right - left) / size**2


def mix(
    pixels: np.ndarray,
    targets: np.ndarray,
    operations: Sequence[tuple[Operation, Any]],
    draws: Draws,
    out: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Mix each of some images with another one of them.

    Args:
        pixels: uint8 or float32 [B, S, S, 3].
        targets: float32 [B, classes], one-hot or soft; a row of zeros for an unlabeled image.
        operations: Those that are on, with their options (``Mixing``). Each image gets at most one of them.
        draws: Gives the generators.
        out: Where to write the pixels, float32 [B, S, S, 3]; None: a new array.

    Returns:
        Pixels float32 [B, S, S, 3], and targets float32 [B, classes] mixed in the same shares.
    """
    import numpy as np

    # One cycle through the images in random order: no image is its own partner.
    order = draws("partners", 0).permutation(len(pixels))
    partners = np.empty_like(order)
    partners[order] = np.roll(order, 1)
    mixed = np.empty(pixels.shape, np.float32) if out is None else out
    shares = np.ones((len(pixels), 1), np.float32)
    for i, partner in enumerate(partners):
        chosen = _choice(operations, draws("choice", i).random())
        if chosen is None:
            mixed[i] = pixels[i]
        else:
            op, options = chosen
            shares[i] = op.function(pixels[i], pixels[partner], options, draws(op.name, i), mixed[i])
    return mixed, shares * targets + (1 - shares) * targets[partners]


def _choice(operations: Sequence[tuple[Operation, Any]], draw: float) -> tuple[Operation, Any] | None:
    """The operation that an image gets, by a number drawn from [0, 1)."""
    scale = max(1.0, sum(options.probability for _, options in operations))
    limit = 0.0
    for op, options in operations:
        limit += options.probability / scale
        if draw < limit:
            return op, options
    return None
