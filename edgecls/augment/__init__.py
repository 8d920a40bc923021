"""Random changes of training images. The same seed gives the same image, because every generator is stateless.

A change of one image is a function in ``IMAGE``, under the name of its key in the recipe's ``augment`` section. The
changes are applied in the order of ``IMAGE``.
"""

from edgecls.augment.batch import mixup
from edgecls.augment.crop import random_window
from edgecls.augment.image import IMAGE, flip, image_augmentation, rotate90

__all__ = ["IMAGE", "flip", "image_augmentation", "mixup", "random_window", "rotate90"]
