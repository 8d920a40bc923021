"""Random changes of training images, drawn from stateless generators: the same seed gives the same image.

Adding one is an entry in ``IMAGE`` (one image at a time) or ``BATCH`` (a whole batch), named as the recipe's key
under ``augment``; the registry's order is the order of application.
"""

from edgecls.augment.batch import BATCH, mixup
from edgecls.augment.crop import random_window
from edgecls.augment.image import IMAGE, flip, image_augmentation, rotate90

__all__ = ["BATCH", "IMAGE", "flip", "image_augmentation", "mixup", "random_window", "rotate90"]
