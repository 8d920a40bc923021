"""Batches of pixels for training and evaluation (tf.data).

Images are made in groups: TensorFlow decodes the window of each JPEG, and one Python function resizes and changes all
images of a group in OpenCV. (A call of Python from tf.data takes 0.2 ms, as long as all else that is done to an image
after its decoding.) docs/time_and_memory.md has the figures, ``scripts/bench_pipeline.py`` measures them.
"""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from edgecls import recipe
from edgecls.allocator import keep_freed_memory
from edgecls.augment.compose import MIXED_TOGETHER, Chain, Mixer
from edgecls.augment.registry import Moment
from edgecls.augment.settings import only
from edgecls.data import images
from edgecls.data.making import Maker
from edgecls.data.preprocess import Preprocess
from edgecls.data.reading import Memory, photos
from edgecls.data.sampling import epoch_order
from edgecls.data.split import Split
from edgecls.errors import EdgeclsError, UsageError
from edgecls.text import first_line

Order = Callable[[int], np.ndarray]
"""Number of an epoch to its images: int [N], or int [N, 2] of an image and the number of its view."""
Answers = Callable[[np.ndarray], np.ndarray]
"""Images and the numbers of their views, int32 [B, 2], to log-probabilities, float32 [B, classes]."""

_PREFETCH = 2  # batches that are made ahead: one is used while the next is made
_GROUP = 8  # most images that are made by one call of Python
_WAITING = 1  # groups beyond one a core: Python runs one thread at a time, others wait for it
_FOREVER = 2**40  # epochs
_FAILURES = (
    tf.errors.InvalidArgumentError,
    tf.errors.UnknownError,
)
"""What a JPEG that went bad raises, or a Python function."""
_JPEG = {"channels": 3, "dct_method": "INTEGER_ACCURATE"}  # as Pillow does


def batches(
    split: Split, preprocess: Preprocess, batch_size: int, *, epoch: int = 0, start: int = 0, **options: Any
) -> tf.data.Dataset:
    """One pass over a split: the dataset of one epoch of ``Batches``, which has the arguments.

    Example:
        >>> for pixels, labels in batches(data.train, preprocess, 32, training=True, epoch=3):  # doctest: +SKIP
        ...     loss = step(pixels, labels)
    """
    return Batches(split, preprocess, batch_size, **options).dataset(epoch, start)


_feeds: weakref.WeakSet[Batches] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Python must not end while threads of TensorFlow may call it."""
    for feed in list(_feeds):
        feed.close()


class Batches:
    """The batches of a split, epoch after epoch.

    The pipeline is built once and does not stop between epochs: while the last batch of an epoch is used, the first of
    the next one is made.

    Training batches are shuffled and augmented at random. Their random numbers depend only on ``seed``, the epoch and the
    index of the image. So an epoch is the same bit for bit with any number of threads, with or without ``cache``, and
    after a resume in its middle.

    Args:
        split: The images.
        preprocess: How the network sees a photo.
        batch_size: Images in a batch, over all workers together.
        training: True: shuffle, and apply ``augment``. False: the order of the split, and plain pixels.
        augment: Random changes. Where it or its ``crop_scale`` is None, images are resized and cropped as in
            evaluation.
        seed: Seed of the order and of the changes.
        epochs: Epochs of the whole training; some changes grow.
        classes: Number of classes. Labels are then targets, and images are mixed as ``augment`` says.
        cache: Keep the decoded images in memory after the first pass, if they fit (``Split.in_memory``).
        drop_remainder: Leave out a last batch that is not full. None: leave it out in training only.
        cast: False: pixels stay uint8, a quarter of the bytes, unless images are mixed.
        order: The images of an epoch; None: all of them once, in training shuffled and as ``Split.sampling`` says.
        views: Each image has that many fixed views: epoch ``e`` uses view ``e % views`` of it (the next ones where it
            comes again), and a view has the same pixels in every epoch. What grows from epoch to epoch has its last
            strength. None: each epoch changes the images anew.
        answers: What is known of the views of a batch, for example what a teacher says of them. It becomes the third
            tensor of the batches. Where images are mixed, the probabilities are mixed as the targets.
        share: Number ``k`` of this worker and the number ``n`` of all: of each batch it makes the images at ``k, k + n,
            k + 2 n, ...``. All workers together make the batches that one makes alone.
        distribute: Called with the dataset before it is iterated, for example
            ``strategy.experimental_distribute_dataset``.

    Batches are (float32 [B, size, size, 3] of whole numbers 0..255, int32 [B] with -1 for unlabeled). With ``classes``:
    (float32 [B, size, size, 3] in 0..255, float32 [B, classes] with zeros for unlabeled); with ``answers`` also float32
    [B, classes], log-probabilities.

    Raises:
        UsageError: A training split has too few images for one batch.

    Example:
        >>> feed = Batches(data.train, preprocess, 32, training=True)  # doctest: +SKIP
        >>> for epoch in range(3):  # doctest: +SKIP
        ...     for pixels, labels in feed.epoch(epoch):
        ...         loss = step(pixels, labels)
    """

    def __init__(
        self,
        split: Split,
        preprocess: Preprocess,
        batch_size: int,
        *,
        training: bool = False,
        augment: recipe.Augment | None = None,
        seed: int = 0,
        epochs: int = 1,
        classes: int | None = None,
        cache: bool = True,
        drop_remainder: bool | None = None,
        cast: bool = True,
        order: Order | None = None,
        views: int | None = None,
        answers: Answers | None = None,
        share: tuple[int, int] = (0, 1),
        distribute: Callable[[tf.data.Dataset], Any] = lambda dataset: dataset,
    ) -> None:
        self._split, self._preprocess, self._batch_size = split, preprocess, batch_size
        self._training, self._seed, self._classes, self._cast = training, seed, classes, cast
        self._views, self._answers, self._share = views, answers, share
        self._drop = training if drop_remainder is None else drop_remainder
        if self._drop and split.epoch_size < batch_size:
            raise UsageError(
                f"{split.epoch_size} images do not fill one batch of {batch_size}",
                fix="lower batch_size or add images",
            )
        self._settings = (
            augment if training and augment is not None else recipe.Augment.model_validate(only())
        )
        self._epochs, self._fill = epochs, tuple(round(255 * mean) for mean in preprocess.mean)
        self._count = split.epoch_size if training else len(split)
        self._order = order or self._usual_order
        self._length = self._steps(self._count if order is None else len(order(0)))
        self._stages: dict[int, tuple[Chain, Mixer]] = {}
        self._own = batch_size // share[1]  # images of a batch that this worker makes
        self._check_share()
        self._group = next(n for n in range(_GROUP, 0, -1) if self._own % n == 0)
        self._photos = photos(split, cache)
        self._in_memory = isinstance(self._photos, Memory)
        self._maker = Maker(self._photos, preprocess, self._stage)
        keep_freed_memory()
        self._distribute = distribute
        self._failure: Exception | None = None
        self._iterator: Iterator[Any] | None = None
        self._next = (-1, 0)  # epoch and step that the iterator gives next
        _feeds.add(self)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._length

    def __iter__(self) -> Iterator[Any]:
        """One more pass over the split."""
        return self.epoch(max(self._next[0], 0))

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        """The batches of an epoch, from step ``start`` on.

        Raises:
            EdgeclsError: More images cannot be read than ``Split.bad_allowed``.
        """
        if self._iterator is None or self._next != (number, start):
            self._begin(number, start)
        self._next = (-1, 0)  # until the epoch has been used up
        for step in range(start, len(self)):
            yield self._take(number, step)
        self._next = (number + 1, 0)

    def _begin(self, epoch: int, start: int) -> None:
        self._iterator = iter(self._distribute(self.dataset(epoch, start, _FOREVER)))

    def _take(self, epoch: int, step: int) -> Any:
        """The next batch. If a photo of it went bad, that is left out, and the batch is made again."""
        while True:
            try:
                assert self._iterator is not None
                return next(self._iterator)
            except _FAILURES as error:
                if self._failure is not None:
                    raise self._failure from None
                images_of_step = self._rows(epoch, step)[..., 0].ravel()[: self._own]
                if not self._photos.look_again(images_of_step[images_of_step >= 0].tolist()):
                    raise EdgeclsError(f"a batch cannot be made: {first_line(error)}") from error
            self._begin(epoch, step)

    def close(self) -> None:
        """Stop making batches; an epoch that is begun later starts anew."""
        self._iterator = None

    def dataset(self, epoch: int = 0, start: int = 0, epochs: int = 1) -> tf.data.Dataset:
        """The batches of ``epochs`` epochs from ``epoch`` on, as a dataset; the first from step ``start`` on."""
        # Keeps the images that the pipeline reads from out of the accelerator's memory.
        with tf.device("CPU:0"):
            passes = tf.data.Dataset.range(epoch, epoch + epochs)
            groups = passes.flat_map(
                lambda e: self._groups(e, tf.where(e == epoch, tf.constant(start, tf.int64), 0))
            )
            # Not inside of ``flat_map``: what is there is optimized anew for each epoch, as long as 80 images take.
            data = groups.map(self._images, images.threads() + _WAITING, deterministic=True)
            data = data.batch(self._own // self._group, drop_remainder=True).map(self._batch)
            return data.prefetch(_PREFETCH).with_options(_without_autotuning())

    def _check_share(self) -> None:
        workers, mixes = self._share[1], bool(Mixer(self._settings))
        unit = workers * (MIXED_TOGETHER if mixes else 1)
        if workers > 1 and (self._batch_size % unit or not self._drop):
            why = f" whose images are mixed in groups of {MIXED_TOGETHER}" if mixes else ""
            raise UsageError(
                f"a batch of {self._batch_size}{why} cannot be divided among {workers} workers",
                fix=f"make batch_size a multiple of {unit}",
            )

    # What is in an epoch -----------------------------------------------------------------------------------------

    def _steps(self, count: int) -> int:
        return count // self._batch_size if self._drop else -(-count // self._batch_size)

    def _usual_order(self, epoch: int) -> np.ndarray:
        if not self._training:
            return np.arange(self._count)
        sampling, repeats = self._split.sampling, self._settings.repeats
        return epoch_order(len(self._split), self._seed, epoch, repeats, sampling, self._epochs)

    def _rows(self, epoch: np.ndarray | int, start: np.ndarray | int) -> np.ndarray:
        """Images of an epoch in groups: int32 [groups, group, 2] of an image (-1: none) and the number of its view.

        Groups of nothing fill the last batch.
        """
        order = np.asarray(self._order(int(epoch)), np.int32)
        order = np.stack([order, _views(order)], 1) if order.ndim == 1 else order
        if self._views is not None:
            order = np.stack([order[:, 0], (order[:, 1] + int(epoch)) % self._views], 1)
        order = order[int(start) * self._batch_size : self._steps(len(order)) * self._batch_size]
        worker, workers = self._share
        order = order[worker::workers]  # of each batch, which holds a multiple of ``workers``
        missing = -len(order) % self._own
        padded = np.concatenate([order, np.full((missing, 2), -1, np.int32)]) if missing else order
        return padded.reshape(-1, self._group, 2)

    def _stage(self, epoch: int) -> tuple[Chain, Mixer]:
        if epoch not in self._stages:
            moment = Moment(epoch, self._epochs, self._fill)
            of_images = moment if self._views is None else Moment(fill=self._fill)  # the same in every epoch
            stage = Chain(self._settings, self._seed, of_images), Mixer(self._settings, self._seed, moment)
            self._stages = {epoch: stage} | dict(list(self._stages.items())[:1])
        return self._stages[epoch]

    # The graph ---------------------------------------------------------------------------------------------------

    def _groups(self, epoch: tf.Tensor, start: tf.Tensor) -> tf.data.Dataset:
        """The groups of an epoch from step ``start`` on: epoch, step, and images as ``_rows`` has them."""
        rows = tf.numpy_function(self._rows, [epoch, start], tf.int32)
        rows = tf.ensure_shape(rows, [None, self._group, 2])
        numbers = tf.range(tf.shape(rows, tf.int64)[0])
        steps = start + numbers // (self._own // self._group)
        return tf.data.Dataset.from_tensor_slices((tf.fill(tf.shape(numbers), epoch), steps, rows))

    def _images(self, epoch: tf.Tensor, step: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """A group of images: epoch, step, numbers of images and views int32 [group, 2], uint8 [group, size, size, 3]."""
        size, count = self._preprocess.size, self._group
        if self._in_memory:
            used, pixels = self._python(self._maker.make, [epoch, rows], (tf.int32, tf.uint8))
        else:
            kinds = (tf.int32, tf.int32, *[tf.string] * count, *[tf.uint8] * count)
            used, windows, *found = self._python(self._maker.plan, [epoch, rows], kinds)
            crops = tf.unstack(tf.ensure_shape(windows, [count, 2, 4])[:, 0])
            # No branch for photos that are no JPEGs: it would cost as much as a tenth of the decoding.
            decoded = [
                tf.io.decode_and_crop_jpeg(tf.ensure_shape(jpeg, []), crop, **_JPEG)
                for jpeg, crop in zip(found[:count], crops, strict=True)
            ]
            arguments = [epoch, used, windows, *found[count:], *decoded]
            (pixels,) = self._python(self._maker.finish, arguments, (tf.uint8,))
        used = tf.ensure_shape(used, [count, 2])
        return epoch, step, used, tf.ensure_shape(pixels, [count, size, size, 3])

    def _batch(self, epochs: tf.Tensor, steps: tf.Tensor, used: tf.Tensor, pixels: tf.Tensor) -> Any:
        """Pixels and labels or targets of a batch that is made of groups."""
        size, epoch, step = self._preprocess.size, epochs[0], steps[0]
        used, pixels = tf.reshape(used, [-1, 2]), tf.reshape(pixels, [-1, size, size, 3])
        if not self._drop:
            count = tf.math.count_nonzero(used[:, 0] >= 0)
            used, pixels = used[:count], pixels[:count]
        labels = tf.gather(tf.constant(self._split.labels, tf.int32), used[:, 0])
        plain = tf.cast(pixels, tf.float32) if self._cast else pixels
        if self._classes is None:
            return plain, labels
        beside = [tf.one_hot(labels, self._classes)]
        if self._answers is not None:
            (answers,) = self._python(self._answers, [used], (tf.float32,))
            beside.append(tf.ensure_shape(answers, beside[0].shape))
        if not self._stage(0)[1]:
            return plain, *beside
        kinds = (tf.float32, *[tf.float32] * len(beside))
        mix = partial(self._maker.mix, self._share)
        mixed = self._python(mix, [epoch, step, pixels, *beside], kinds)
        return tuple(
            tf.ensure_shape(made, old.shape) for made, old in zip(mixed, (pixels, *beside), strict=True)
        )

    def _python(self, function: Callable[..., Any], arguments: list[Any], kinds: tuple[Any, ...]) -> Any:
        """Call a function of arrays from the graph, and keep its error: TensorFlow hands on its text alone."""

        def call(*arrays: np.ndarray) -> Any:
            try:
                return function(*arrays)
            except Exception as error:
                self._failure = error
                raise

        return tf.numpy_function(call, arguments, kinds)


def _views(order: np.ndarray) -> np.ndarray:
    """How often each image came before in an epoch: int [N]. So an image that comes again is not changed alike."""
    by_image = np.argsort(order, kind="stable")
    places = np.arange(len(order))
    is_first = np.diff(order[by_image], prepend=-1) != 0
    views = np.empty_like(order)
    views[by_image] = places - np.maximum.accumulate(np.where(is_first, places, 0))
    return views


def _without_autotuning() -> tf.data.Options:
    """Fixed parallelism. Autotuning has a thread of its own; an iterator waits for it at its end, up to 2 s an epoch."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return options
