"""Operations that mix the images of a batch and their targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from edgecls._schema import Section
from edgecls.augment.registry import Moment, operation

if TYPE_CHECKING:
    import numpy as np


class Mixup(Section):
    """Blend every image and its target with another one of the batch."""

    alpha: float = Field(
        default=0.2, gt=0, description="the share of an image is drawn from Beta(alpha, alpha)"
    )


@operation("mixup", "batch", Mixup, paper="https://arxiv.org/abs/1710.09412")
def mixup(
    pixels: np.ndarray, targets: np.ndarray, options: Mixup, rng: np.random.Generator, moment: Moment
) -> tuple[np.ndarray, np.ndarray]:
    """Blend with one share for the whole batch; a random order of the batch gives each image its partner."""
    share = rng.beta(options.alpha, options.alpha)
    order = rng.permutation(len(pixels))
    return _blend(pixels, order, share), _blend(targets, order, share)


def _blend(x: np.ndarray, order: np.ndarray, share: float) -> np.ndarray:
    """``share * x + (1 - share) * x[order]``."""
    partners = x[order]
    partners *= 1.0 - share
    partners += x * x.dtype.type(share)
    return partners
