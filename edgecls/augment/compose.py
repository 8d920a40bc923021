"""All changes of one image, and of one batch, as one function each; and both together for a notebook.

Everything here is NumPy on the CPU. The random numbers of an operation depend on the seed, the epoch, the index of the
image (or of the batch), the number of its draw and the operation's name. So switching one operation on leaves what the
others draw as it was, and an epoch is the same with any number of threads.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.random.bit_generator import ISeedSequence
from pydantic import ValidationError

from edgecls import _yaml
from edgecls._explain import usage_error
from edgecls.augment.geometry import random_window
from edgecls.augment.mix import mix
from edgecls.augment.registry import OFF, OPERATIONS, START, Moment, Operation, Where
from edgecls.augment.settings import Augment, only
from edgecls.errors import UsageError

MIXED_TOGETHER = 8
"""Images of a batch that are mixed with each other, so that several workers can make one batch without asking each other."""


def generator(seed: int, epoch: int, index: int, name: str, draw: int = 0) -> np.random.Generator:
    """The random numbers of one operation on one image.

    Args:
        seed: Of the recipe.
        epoch: Number of the epoch.
        index: Of the image in its split, or of the batch in its epoch.
        name: Of the operation.
        draw: Number of the view, where an image is used several times in an epoch.

    Example:
        >>> generator(0, 3, 17, "flip").random() == generator(0, 3, 17, "flip").random()
        True
    """
    # The first word counts the numbers that are drawn; the other three tell streams apart.
    counter = np.array([0, index, epoch, draw], np.uint64)
    return np.random.Generator(np.random.Philox(_key(seed, name), counter=counter))


class _Key(ISeedSequence):
    """A key for Philox as it is: made by NumPy's own class, a generator takes several times as long."""

    def __init__(self, seed: int, name: str) -> None:
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        self._words = np.array([int.from_bytes(digest, "little"), seed], np.uint64)

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> np.ndarray:
        """The two words of the key."""
        assert n_words == 2
        return self._words


@functools.lru_cache(1024)
def _key(seed: int, name: str) -> Any:  # NumPy's type hints leave out its own ISeedSequence
    return _Key(seed, name)


class _Stage:
    """The operations of some places that a recipe switches on, in their order, at one epoch."""

    places: ClassVar[Sequence[Where]]

    def __init__(self, settings: Augment, seed: int = 0, moment: Moment = START) -> None:
        self.settings, self.seed, self.moment = settings, seed, moment
        self.operations: list[tuple[Operation, Any]] = [
            (op, getattr(settings, op.name))
            for place in self.places
            for op in OPERATIONS.values()
            if op.where == place and getattr(settings, op.name) not in OFF
        ]
        cv2.setNumThreads(1)  # images are changed in parallel, each by one thread

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.operations)

    def generator(self, index: int, name: str, draw: int) -> np.random.Generator:
        return generator(self.seed, self.moment.epoch, int(index), name, int(draw))


class Chain(_Stage):
    """The changes of one image: crop window first, then ``image``, then ``pixels`` operations.

    Args:
        settings: The recipe's ``augment`` section.
        seed: Of the recipe.
        moment: Epoch, and the color of pixels that have none.

    Example:
        >>> chain = Chain(Augment(flip="both"), seed=0, moment=Moment(epoch=2))
        >>> chain.window(300, 400, index=5)
        array([  4, 151, 276, 239], dtype=int32)
        >>> chain(np.zeros((224, 224, 3), np.uint8), index=5).shape
        (224, 224, 3)
    """

    places = ("image", "pixels")

    @property
    def crops(self) -> bool:
        """Whether the recipe has a random crop."""
        return self.settings.crop_scale is not None

    def window(self, height: int, width: int, index: int, draw: int = 0) -> np.ndarray:
        """The random crop of an image.

        Args:
            height: Of the image, pixels.
            width: Of the image, pixels.
            index: Of the image in its split.
            draw: Number of the view, where an image is used several times in an epoch.

        Returns:
            int32 [4]: top, left, height and width, pixels.
        """
        rng = self.generator(index, "crop", draw)
        window = random_window(
            int(height), int(width), self.settings.crop_scale, self.settings.crop_ratio, rng
        )
        return np.array(window, np.int32)

    def __call__(self, image: np.ndarray, index: int, draw: int = 0) -> np.ndarray:
        """Change an image.

        Args:
            image: uint8 [S, S, 3], cropped and resized. It is not changed.
            index: Of the image in its split.
            draw: Number of the view, where an image is used several times in an epoch.

        Returns:
            uint8 [S, S, 3].
        """
        return self.change(image.copy(), index, draw)

    def change(self, image: np.ndarray, index: int, draw: int = 0) -> np.ndarray:
        """As a call, but ``image`` may be changed in place, which saves a copy."""
        for op, options in self.operations:
            image = op.function(image, options, self.generator(index, op.name, draw), self.moment)
        return image


class Mixer(_Stage):
    """The changes of a batch: images are mixed, and their targets alike.

    A batch whose size is a multiple of ``MIXED_TOGETHER`` is mixed in blocks of that many images. The images of a block
    are spread evenly over the batch, since repeated images stand side by side. Another batch is one block.

    Args:
        settings: The recipe's ``augment`` section.
        seed: Of the recipe.
        moment: As of ``Chain``.

    Example:
        >>> mixer = Mixer(Augment.model_validate({"mixup": {"alpha": 0.2}}))
        >>> pixels, targets = mixer(np.zeros((2, 8, 8, 3), np.float32), np.eye(2, dtype=np.float32), index=0)
        >>> targets.sum(axis=1)
        array([1., 1.], dtype=float32)
    """

    places = ("batch",)

    def __init__(self, settings: Augment, seed: int = 0, moment: Moment = START) -> None:
        super().__init__(settings, seed, moment)
        if moment.epoch >= moment.epochs - settings.off_epochs:
            self.operations = []

    def __call__(
        self, pixels: np.ndarray, targets: np.ndarray, index: int, share: tuple[int, int] = (0, 1)
    ) -> tuple[np.ndarray, np.ndarray]:
        """Change a batch, or the share of one that a worker has.

        Args:
            pixels: uint8 or float32 [B, S, S, 3] in 0..255.
            targets: float32 [B, classes]; a row of zeros for an unlabeled image.
            index: Of the batch in its epoch.
            share: Number ``k`` of a worker and the number ``n`` of all: the images are those at ``k, k + n, k + 2 n, ...``
                of the batch, a multiple of ``MIXED_TOGETHER``. They become what they become in the whole batch.

        Returns:
            Pixels and targets of the same shapes, float32.
        """
        worker, workers = share
        blocks = 1 if len(pixels) % MIXED_TOGETHER else max(1, len(pixels) // MIXED_TOGETHER)
        mixed, soft = np.empty(pixels.shape, np.float32), np.empty(targets.shape, np.float32)
        for block in range(blocks):
            rows = slice(block, None, blocks)
            number = (index * blocks + block) * workers + worker  # of the block in the epoch
            draws = functools.partial(self._draws, number)
            soft[rows] = mix(pixels[rows], targets[rows], self.operations, draws, mixed[rows])[1]
        return mixed, soft

    def _draws(self, block: int, name: str, image: int) -> np.random.Generator:
        return self.generator(block, name, image)


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Targets of labels [N]: float32 [N, classes]; a row of zeros for an unlabeled image (-1)."""
    return (np.asarray(labels)[:, None] == np.arange(classes)).astype(np.float32)


def apply(
    images: np.ndarray,
    labels: np.ndarray,
    augment: Mapping[str, Any],
    classes: int,
    seed: int = 0,
    epoch: int = 0,
    epochs: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Augment images as a training would, as one batch, on one thread (``cv2.setNumThreads(1)`` stays set).

    Args:
        images: uint8 [N, S, S, 3].
        labels: int [N]; -1 for an unlabeled image.
        augment: As the recipe's ``augment`` section. Only what it names is done: without ``crop_scale`` and ``flip``
            there is no crop and no mirror.
        classes: Number of classes.
        seed: As the recipe's ``seed``.
        epoch: Number of the epoch, from 0.
        epochs: Epochs of the whole training; some operations grow.

    Returns:
        Pixels float32 [N, S, S, 3] in 0..255, as the networks take them, and targets float32 [N, classes].

    Raises:
        UsageError: A key or a value of ``augment`` is wrong, or the arrays do not have the form above.

    Example:
        >>> images = np.zeros((4, 32, 32, 3), np.uint8)
        >>> pixels, targets = apply(images, np.array([0, 1, 2, 1]), {"flip": "both", "mixup": {"alpha": 0.2}}, classes=3)
        >>> pixels.shape, targets.shape
        ((4, 32, 32, 3), (4, 3))
    """
    images = np.ascontiguousarray(images)
    _check(images, labels, classes)
    settings, moment = _parse(augment), Moment(epoch, epochs)
    chain, mixer = Chain(settings, seed, moment), Mixer(settings, seed, moment)
    changed = [chain(_crop(chain, image, i), i) for i, image in enumerate(images)]
    pixels = np.stack(changed) if changed else images
    return mixer(pixels, one_hot(labels, classes), 0)


def _crop(chain: Chain, image: np.ndarray, index: int) -> np.ndarray:
    """Cut the random window and resize it to the size of the image: as the pipeline does, by default."""
    if not chain.crops:
        return image
    height, width = image.shape[:2]
    top, left, rows, columns = chain.window(height, width, index)
    window = image[top : top + rows, left : left + columns]
    return cv2.resize(window, (width, height), interpolation=cv2.INTER_LINEAR)


def _parse(augment: Mapping[str, Any]) -> Augment:
    tree = _yaml.Tree(only(**augment))
    try:
        return Augment.model_validate(tree.values)
    except ValidationError as error:
        raise usage_error(error, tree, Augment) from None


def _check(images: np.ndarray, labels: np.ndarray, classes: int) -> None:
    square = images.ndim == 4 and images.shape[1] == images.shape[2] > 0 and images.shape[3] == 3
    if images.dtype != np.uint8 or not square:
        raise UsageError(f"images must be uint8 [N, S, S, 3], not {images.dtype} {list(images.shape)}")
    if np.shape(labels) != (len(images),):
        raise UsageError(f"{len(images)} images need labels of the same number, not {list(np.shape(labels))}")
    if len(labels) and np.max(labels) >= classes:
        raise UsageError(f"label {np.max(labels)} is not below classes ({classes})")
