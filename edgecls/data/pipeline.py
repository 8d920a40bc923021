"""Batches of pixels for training and evaluation (tf.data)."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from edgecls import recipe
from edgecls.augment import image_augmentation, random_window
from edgecls.data import images
from edgecls.data.preprocess import Preprocess, decode_jpeg
from edgecls.data.split import Split
from edgecls.errors import EdgeclsError, UsageError
from edgecls.text import escape

Reader = Callable[[tf.Tensor, tf.Tensor | None], tf.Tensor]
"""(index of an image in the split, window int32 [4] or None for the whole image) to uint8 [H, W, 1 or 3]."""

_PREFETCH = 2  # batches that are made ahead: one is used while the next is made
_CROP = 1 << 20  # number of the crop's random stream; the streams of the other changes count from 0


def batches(
    split: Split,
    preprocess: Preprocess,
    batch_size: int,
    *,
    training: bool = False,
    augment: recipe.Augment | None = None,
    seed: int = 0,
    epoch: int = 0,
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
        cache: Keep the decoded images in memory after the first pass, if they fit (``Split.in_memory``).
        drop_remainder: Leave out a last batch that is not full. None: leave it out in training only.

    Returns:
        Batches of (float32 [B, size, size, 3] of whole numbers 0..255, int32 [B] with -1 for unlabeled).

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
    settings = augment.model_dump() if training and augment is not None else {}
    with tf.device("CPU:0"):  # keeps the images that the pipeline reads from out of the accelerator's memory
        in_memory = split.images is not None or (cache and split.in_memory)
        read = _memory_reader(split) if in_memory else _file_reader(split, preprocess)
        example = _example(split, preprocess, read, settings, tf.constant([seed, epoch], tf.int32))
        labels = tf.constant(split.labels, tf.int32)
        indices = tf.data.Dataset.from_tensor_slices(order.astype(np.int32))
        data = indices.map(lambda i: (example(i), labels[i]), images.threads(), deterministic=True)
        data = data.batch(batch_size, drop_remainder)
        data = data.map(lambda x, y: (tf.cast(x, tf.float32), y))
        return data.prefetch(_PREFETCH).with_options(_without_autotuning())


def _without_autotuning() -> tf.data.Options:
    """Fixed parallelism. Autotuning has a thread of its own; an iterator waits for it at its end, up to 2 s an epoch."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def _example(
    split: Split, preprocess: Preprocess, read: Reader, settings: dict[str, Any], key: tf.Tensor
) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function: index of an image in ``split`` to uint8 [size, size, 3], augmented as ``settings`` say."""
    change = image_augmentation(settings)
    crop_scale, size = settings.get("crop_scale"), preprocess.size
    shapes = tf.constant(split.shapes, tf.int32)

    def example(index: tf.Tensor) -> tf.Tensor:
        draws = tf.random.fold_in(key, index)
        if crop_scale is None:
            image = preprocess.resize_crop(read(index, None))
        else:
            height, width = shapes[index, 0], shapes[index, 1]
            crop_seed = tf.random.fold_in(draws, _CROP)
            window = random_window(height, width, crop_scale, settings["crop_ratio"], crop_seed)
            image = preprocess.resize(read(index, window), [size, size])
        image = tf.broadcast_to(image, [size, size, 3])  # from one channel where gray
        return tf.ensure_shape(change(image, draws), [size, size, 3])

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
