"""Batches of pixels for training and evaluation (tf.data)."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from edgecls import recipe
from edgecls.augment.compose import Chain, Mixer
from edgecls.augment.registry import Moment
from edgecls.augment.settings import only
from edgecls.data import images
from edgecls.data.preprocess import Preprocess, decode_jpeg
from edgecls.data.split import Split
from edgecls.errors import EdgeclsError, UsageError
from edgecls.text import escape

Reader = Callable[[tf.Tensor, tf.Tensor | None], tf.Tensor]
"""(index of an image in the split, window int32 [4] or None for the whole image) to uint8 [H, W, 1 or 3]."""

_PREFETCH = 2  # batches that are made ahead: one is used while the next is made


def batches(
    split: Split,
    preprocess: Preprocess,
    batch_size: int,
    *,
    training: bool = False,
    augment: recipe.Augment | None = None,
    seed: int = 0,
    epoch: int = 0,
    epochs: int = 1,
    classes: int | None = None,
    cache: bool = True,
    drop_remainder: bool | None = None,
) -> tf.data.Dataset:
    """One pass over a split.

    Training batches are shuffled and augmented at random. Their random numbers depend only on ``seed``, ``epoch`` and
    the index of the image. So an epoch is the same bit for bit with any number of threads and after a resume. (Random
    crops of a JPEG with and without ``cache`` may differ by one level along the border of the crop, where the decoder
    interpolates color.)

    Args:
        split: The images.
        preprocess: How the network sees a photo.
        batch_size: Images in a batch.
        training: True: shuffle, and apply ``augment``. False: the order of the split, and plain pixels.
        augment: Random changes. Where it or its ``crop_scale`` is None, images are resized and cropped as in
            evaluation.
        seed: Seed of the order and of the changes.
        epoch: Number of the epoch, which gives each epoch its own order and changes.
        epochs: Epochs of the whole training; some changes grow.
        classes: Number of classes. Labels are then targets, and images are mixed as ``augment`` says.
        cache: Keep the decoded images in memory after the first pass, if they fit (``Split.in_memory``).
        drop_remainder: Leave out a last batch that is not full. None: leave it out in training only.

    Returns:
        Batches of (float32 [B, size, size, 3] of whole numbers 0..255, int32 [B] with -1 for unlabeled). With
        ``classes``: (float32 [B, size, size, 3] in 0..255, float32 [B, classes] with zeros for unlabeled).

    Raises:
        UsageError: A training split has too few images for one batch.

    Example:
        >>> for pixels, labels in batches(data.train, preprocess, 32, training=True, epoch=3):  # doctest: +SKIP
        ...     loss = step(pixels, labels)
    """
    drop_remainder = training if drop_remainder is None else drop_remainder
    count = len(split)
    if drop_remainder and count < batch_size:
        raise UsageError(
            f"{count} images do not fill one batch of {batch_size}", fix="lower batch_size or add images"
        )
    order = np.random.default_rng([seed, epoch]).permutation(count) if training else np.arange(count)
    settings = augment if training and augment is not None else recipe.Augment.model_validate(only())
    moment = Moment(epoch, epochs, tuple(round(255 * mean) for mean in preprocess.mean))
    with tf.device("CPU:0"):  # keeps the images that the pipeline reads from out of the accelerator's memory
        in_memory = split.images is not None or (cache and split.in_memory)
        read = _memory_reader(split) if in_memory else _file_reader(split, preprocess)
        example = _example(split, preprocess, read, Chain(settings, seed, moment))
        labels = tf.constant(split.labels, tf.int32)
        indices = tf.data.Dataset.from_tensor_slices(order.astype(np.int32))
        data = indices.map(lambda i: (example(i), labels[i]), images.threads(), deterministic=True)
        data = data.batch(batch_size, drop_remainder)
        data = data.map(lambda x, y: (tf.cast(x, tf.float32), y))
        if classes is not None:
            data = _mixed(data, Mixer(settings, seed, moment), classes)
        return data.prefetch(_PREFETCH).with_options(_without_autotuning())


def _without_autotuning() -> tf.data.Options:
    """Fixed parallelism. Autotuning has a thread of its own; an iterator waits for it at its end, up to 2 s an epoch."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def _mixed(data: tf.data.Dataset, mixer: Mixer, classes: int) -> tf.data.Dataset:
    """Batches with targets in place of labels, mixed."""
    data = data.map(lambda x, y: (x, tf.one_hot(y, classes)))
    if not mixer:
        return data

    def mix(index: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        out = tf.numpy_function(mixer, [*batch, index], (tf.float32, tf.float32), stateful=False)
        return tf.ensure_shape(out[0], batch[0].shape), tf.ensure_shape(out[1], batch[1].shape)

    return data.enumerate().map(mix)


def _example(
    split: Split, preprocess: Preprocess, read: Reader, chain: Chain
) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function: index of an image in ``split`` to uint8 [size, size, 3], changed by ``chain``."""
    size, shapes = preprocess.size, tf.constant(split.shapes, tf.int32)

    def example(index: tf.Tensor) -> tf.Tensor:
        if chain.crops:
            arguments = [shapes[index, 0], shapes[index, 1], index]
            window = tf.numpy_function(chain.window, arguments, tf.int32, stateful=False)
            image = preprocess.resize(read(index, tf.ensure_shape(window, [4])), [size, size])
        else:
            image = preprocess.resize_crop(read(index, None))
        image = tf.broadcast_to(image, [size, size, 3])  # from one channel where gray
        if chain:
            image = tf.numpy_function(chain, [image, index], tf.uint8, stateful=False)
        return tf.ensure_shape(image, [size, size, 3])

    return example


def _memory_reader(split: Split) -> Reader:
    if "pixels" not in split.store:
        split.store["pixels"] = tf.constant(_decode_all(split))
    pixels, shapes = split.store["pixels"], tf.constant(split.shapes, tf.int32)
    starts = tf.constant(np.cumsum([0, *split.sizes[:-1]]), tf.int64)

    def read(index: tf.Tensor, window: tf.Tensor | None) -> tf.Tensor:
        shape = shapes[index]
        flat = tf.slice(pixels, starts[index, None], tf.cast(tf.reduce_prod(shape), tf.int64)[None])
        return _cut(tf.reshape(flat, shape), window)

    return read


def _decode_all(split: Split) -> np.ndarray:
    """The pixels of all images of a split, one image after the other: uint8 [sum of H * W * C]."""
    if split.images is not None:
        return split.images.reshape(-1)
    assert split.files is not None
    files, stops = split.files, np.cumsum(split.sizes)
    flat = np.empty(stops[-1] if len(files) else 0, np.uint8)

    def decode(i: int) -> None:
        try:
            image = images.read_photo(files[i])
        except ValueError as error:
            raise EdgeclsError(
                f"an image that was good at the start cannot be read: {error}", where=escape(files[i])
            ) from None
        if image.shape != tuple(split.shapes[i]):
            raise EdgeclsError(
                "an image was changed since the start", where=escape(files[i]), fix="start again"
            )
        flat[stops[i] - image.size : stops[i]] = image.reshape(-1)

    with ThreadPoolExecutor(images.threads()) as pool:
        for _ in pool.map(decode, range(len(files))):
            pass
    return flat


def _file_reader(split: Split, preprocess: Preprocess) -> Reader:
    assert split.files is not None
    files = tf.constant([os.fsencode(file) for file in split.files], tf.string)  # a name need not be UTF-8
    jpeg = tf.constant(split.jpeg, tf.bool)

    def read(index: tf.Tensor, window: tf.Tensor | None) -> tf.Tensor:
        data = tf.io.read_file(files[index])
        return tf.cond(
            jpeg[index],
            lambda: decode_jpeg(data, window),
            lambda: _cut(preprocess.decode(data), window),
        )

    return read


def _cut(image: tf.Tensor, window: tf.Tensor | None) -> tf.Tensor:
    if window is None:
        return image
    top, left, height, width = tf.unstack(window)
    return image[top : top + height, left : left + width]
