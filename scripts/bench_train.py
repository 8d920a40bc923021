"""Training speed in one run, side by side: our networks against ``keras.applications``, grouped convolutions against
their other formulations.

    python scripts/bench_train.py [--size 224] [--batch 16] [--rounds 5]
    python scripts/bench_train.py --epochs 4 --photos FOLDER [--size 128] [--batch 16]
    python scripts/bench_train.py --loop 3 --photos FOLDER [--size 128] [--batch 16] [--network NAME]
    python scripts/bench_train.py --ssld [--size 128] [--batch 16] [--rounds 5]

Every network takes the same step (cross-entropy, SGD with momentum, one ``tf.function``) on the same random images.
The networks take turns in each round, so that a disturbance slows all of them. A figure is the median of the rounds.
``--epochs`` measures whole epochs in place of steps: photos from disk, through the pipeline of a training, into
MobileNetV3_small_x0_35, with photos in memory and decoded anew; beside them the same steps on one batch. Between the last
step of an epoch and the first of the next, and between two passes of validation, there must be less than 0.1 s.
``--loop`` trains whole epochs as ``edgecls train`` does (pipeline, loop, checkpoints), and ``keras.applications`` with Keras'
``fit`` on the same batches, in a process where TensorFlow is as it comes; it tells the speeds of the epochs after the first,
the share of the time in which the loop waited for data, the time between epochs, and the time of the checkpoints. ``--ssld``
compares a step of distillation with a step of the student and an answer of the teacher, which take turns on one batch, and
a step whose batch carries the answers (``distill.views``) with a step of the student.

The exit code is 1 if ours is less than 1.3 times as fast as Keras', or if another formulation of grouped convolutions
is faster than ours, or if an epoch is waited for, or if distillation costs more than 1.10 times its parts (1.05
times the student's step with views), or if waiting for data takes 5 % or checkpoints 2 % of the time.
"""

from __future__ import annotations

import functools
import os
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import edgecls  # before Keras: it says what TensorFlow computes with

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import bench_loop
import keras
import numpy as np
import tensorflow as tf

from edgecls.data.pipeline import Batches
from edgecls.data.preprocess import Preprocess
from edgecls.environment import cores, cpu_model
from edgecls.recipe import Augment
from edgecls.zoo import layers as zoo_layers

STEPS = 3  # of each network in a round
TOO_SLOW = 8  # a network this many times slower than the fastest in its first step is not measured again
Step = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
Formulation = Callable[[keras.layers.Conv2D, tf.Tensor, tf.Tensor], tf.Tensor]
MIN_SPEEDUP = 1.3  # ours against keras.applications
MOST_WAIT = 0.1  # seconds between the last step of an epoch and the first of the next
NOISE = 1.05  # a formulation counts as faster only beyond this ratio


def split(layer: keras.layers.Conv2D, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Compute one convolution for each group and join their outputs."""
    pairs = zip(tf.split(inputs, layer.groups, -1), tf.split(kernel, layer.groups, -1), strict=True)
    return tf.concat([tf.nn.conv2d(x, k, layer.strides, layer.padding.upper()) for x, k in pairs], -1)


def convolutions_of_groups(count: int) -> Formulation:
    """Computes ``count`` convolutions; each takes several groups, with zeros in its kernel between the groups."""

    def compute(layer: keras.layers.Conv2D, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        height, width, group_channels, filters = kernel.shape
        groups_each = layer.groups // count
        kernel = tf.reshape(
            kernel, (height, width, group_channels, count, groups_each, filters // layer.groups)
        )
        kernel = tf.einsum("hwinpo,qp->nhwqipo", kernel, tf.eye(groups_each))
        kernels = tf.unstack(
            tf.reshape(kernel, (count, height, width, groups_each * group_channels, filters // count))
        )
        pairs = zip(tf.split(inputs, count, -1), kernels, strict=True)
        return tf.concat([tf.nn.conv2d(x, k, layer.strides, layer.padding.upper()) for x, k in pairs], -1)

    return compute


def depthwise(layer: keras.layers.Conv2D, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Compute a depthwise convolution with several outputs for each channel, and sum them within each group."""
    height, width, group_channels, filters = kernel.shape
    group_filters = filters // layer.groups
    kernel = tf.reshape(kernel, (height, width, group_channels, layer.groups, group_filters))
    kernel = tf.reshape(
        tf.transpose(kernel, (0, 1, 3, 2, 4)), (height, width, group_channels * layer.groups, group_filters)
    )
    outputs = tf.nn.depthwise_conv2d(inputs, kernel, [1, *layer.strides, 1], layer.padding.upper())
    shape = (-1, *outputs.shape[1:3])
    return tf.reshape(
        tf.reduce_sum(tf.reshape(outputs, (*shape, layer.groups, group_channels, group_filters)), 4),
        (*shape, filters),
    )


FORMULATIONS: dict[str, Formulation] = {
    "ours": zoo_layers.GroupedConv2D.convolution_op,
    "Keras' Conv2D": keras.layers.Conv2D.convolution_op,
    "32 convolutions": split,
    "16 convolutions": convolutions_of_groups(16),
    "8 convolutions": convolutions_of_groups(8),
    "depthwise and sum": depthwise,
}


def main() -> int:
    """Measure and print both tables."""
    parser = bench_loop.parser(__doc__)
    parser.add_argument("--epochs", type=int, help="measure so many whole epochs")
    parser.add_argument("--loop", type=int, help="train so many whole epochs, and with Keras' fit")
    parser.add_argument("--network", choices=list(bench_loop.PAIRS), help="with --loop: this one alone")
    parser.add_argument("--ssld", action="store_true", help="measure a step of distillation")
    parser.add_argument("--photos", type=Path, help="folder of photos for --epochs and --loop")
    options = parser.parse_args()
    size, batch, rounds = options.size, options.batch, options.rounds
    print(
        f"{cpu_model()}, {cores()} cores, TensorFlow {tf.__version__}, Keras {keras.__version__}", flush=True
    )
    if options.epochs:
        return whole_epochs(options.photos, size, batch, options.epochs)
    if options.loop:
        return bench_loop.against_fit(options.photos, size, batch, options.loop, options.network)
    if options.ssld:
        return bench_loop.distillation(size, batch, rounds)
    options_of_keras = {"weights": None, "input_shape": (size, size, 3), "classifier_activation": None}
    speeds = images_per_second(
        {
            "MobileNetV3_large_x1_0": lambda: edgecls.build_model("MobileNetV3_large_x1_0", input_size=size),
            "keras MobileNetV3Large": lambda: keras.applications.MobileNetV3Large(
                include_preprocessing=False, **options_of_keras
            ),
            "MobileNetV2": lambda: edgecls.build_model("MobileNetV2", input_size=size),
            "keras MobileNetV2": lambda: keras.applications.MobileNetV2(**options_of_keras),
        },
        size,
        batch,
        rounds,
    )
    ratios = [
        speeds["MobileNetV3_large_x1_0"] / speeds["keras MobileNetV3Large"],
        speeds["MobileNetV2"] / speeds["keras MobileNetV2"],
    ]
    print("ours / keras.applications: " + ", ".join(f"{ratio:.2f}" for ratio in ratios), flush=True)
    ours, *others = FORMULATIONS
    grouped = images_per_second({name: formulated(name, size) for name in FORMULATIONS}, size, batch, rounds)
    slower = max(grouped[name] for name in others) / grouped[ours]
    print(f"ResNeXt50_32x4d: best other formulation / ours: {slower:.2f}")
    return 0 if min(ratios) >= MIN_SPEEDUP and slower <= NOISE else 1


def whole_epochs(folder: Path, size: int, batch: int, epochs: int) -> int:
    """Measure epochs and passes of validation through the pipeline; the exit code."""
    found = bench_loop.photo_split(folder)
    model, preprocess = edgecls.build_model("MobileNetV3_small_x0_35", input_size=size), Preprocess(size)
    step = training_step(model)
    forward = tf.function(lambda pixels, labels: tf.reduce_sum(model(pixels, training=False)))
    worst = 0.0
    for in_memory in (True, False):
        split = replace(found, in_memory=in_memory)
        feeds = {
            "training": (
                Batches(split, preprocess, batch, training=True, augment=Augment(), epochs=epochs),
                step,
            ),
            "validation": (Batches(split, preprocess, batch, drop_remainder=True), forward),
        }
        for name, (feed, work) in feeds.items():
            first = next(iter(feed.dataset()))
            seconds(work, *first, 1)
            alone = STEPS * batch / seconds(work, *first, STEPS)
            speeds, waits = [], []
            for epoch in range(epochs):
                speed, waited = one_epoch(feed.epoch(epoch), work, batch, time.perf_counter())
                speeds.append(speed)
                waits.append(waited)
            worst = max(worst, *waits[1:])
            print(
                f"{name:10} {'in memory' if in_memory else 'from files':10}: {statistics.median(speeds):8.1f} images/s in "
                f"whole epochs, {alone:8.1f} in steps on one batch; before the first step of an epoch "
                f"{max(waits[1:]):.3f} s",
                flush=True,
            )
    return 0 if worst < MOST_WAIT else 1


def one_epoch(batches: Iterable[Any], work: Step, batch: int, ended: float) -> tuple[float, float]:
    """Images a second of an epoch, and the seconds from ``ended`` until its first batch is there."""
    waited, count = 0.0, 0
    for pixels, labels in batches:
        waited = waited or time.perf_counter() - ended
        float(work(pixels, labels))
        count += 1
    return count * batch / (time.perf_counter() - ended), waited


def formulated(name: str, size: int) -> Callable[[], keras.Model]:
    """Builds a ResNeXt50_32x4d whose grouped convolutions are computed as ``FORMULATIONS[name]``."""

    def build() -> keras.Model:
        model = edgecls.build_model("ResNeXt50_32x4d", input_size=size)
        for layer in model.layers:
            if isinstance(layer, zoo_layers.GroupedConv2D):
                layer.convolution_op = functools.partial(FORMULATIONS[name], layer)
        return model

    return build


def images_per_second(
    builders: dict[str, Callable[[], keras.Model]], size: int, batch: int, rounds: int
) -> dict[str, float]:
    """Median speed of each network's training step, measured in turn."""
    rng = np.random.default_rng(0)
    images = tf.constant(rng.standard_normal((batch, size, size, 3)), tf.float32)
    labels = tf.constant(rng.integers(0, 1000, batch), tf.int32)
    steps = {}
    for name, build in builders.items():
        started = time.perf_counter()
        steps[name] = training_step(build())
        steps[name](images, labels)
        print(f"{name}: first step {time.perf_counter() - started:.0f} s", flush=True)
    speeds = {name: [batch / seconds(step, images, labels, 1)] for name, step in steps.items()}
    best = max(values[0] for values in speeds.values())
    for _ in range(rounds):
        for name, step in steps.items():
            if speeds[name][0] > best / TOO_SLOW:
                speeds[name].append(STEPS * batch / seconds(step, images, labels, STEPS))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    for name, values in speeds.items():
        print(f"{name:28} {medians[name]:8.2f} images/s  [{min(values):.2f}, {max(values):.2f}]", flush=True)
    return medians


def seconds(step: Step, images: tf.Tensor, labels: tf.Tensor, count: int) -> float:
    """Time that ``count`` steps take."""
    started = time.perf_counter()
    for _ in range(count):
        loss = step(images, labels)
    float(loss)
    return time.perf_counter() - started


def training_step(model: keras.Model) -> Step:
    """One optimizer step as a compiled function of a batch."""
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model(images, training=True))
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    return step


if __name__ == "__main__":
    raise SystemExit(main())
