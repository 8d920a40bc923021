"""Random changes of training images. The same seed gives the same image, with any number of threads.

An operation is registered in ``edgecls.augment.registry`` under the name of its key in the recipe's ``augment`` section.
``apply`` runs operations on arrays, as a training would:

    >>> images = np.full((4, 32, 32, 3), 200, np.uint8)
    >>> pixels, targets = edgecls.augment.apply(images, np.array([0, 1, 2, 1]), {"mixup": {"alpha": 0.2}}, classes=3)
    >>> pixels.shape, targets.shape
    ((4, 32, 32, 3), (4, 3))
"""

from __future__ import annotations

from typing import Any

from edgecls.augment.registry import OPERATIONS
from edgecls.augment.settings import Augment

__all__ = ["OPERATIONS", "Augment", "Chain", "Mixer", "apply"]


def __getattr__(name: str) -> Any:
    if name in ("Chain", "Mixer", "apply"):  # they load NumPy and OpenCV, which a recipe does not need
        from edgecls.augment import compose

        return getattr(compose, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
