"""What Mixup and CutMix add to a training step.

    python scripts/bench_mix.py [--rounds 7]

Both are measured in processor time of all threads, on the same batch of 32 images; steps and mixing take turns, and the
best of the rounds counts. The exit code is 1 if mixing costs more than 3 % of a step. Mixing includes the conversion of
the pixels to float32, which a training without it does as well.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import edgecls  # before Keras: it says what TensorFlow computes with

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from bench_train import training_step

from edgecls.augment import OPERATIONS, Augment, Mixer
from edgecls.augment.settings import only
from edgecls.environment import cores, cpu_model

BATCH, CLASSES = 32, 10
NETWORKS = {
    "MobileNetV3_small_x1_0": 128,
    "MobileNetV3_large_x1_0": 224,
}  # the quick start's, and a usual one
MAX_SHARE = 0.03


def main() -> int:
    """Measure and print a row for each network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print(f"{cpu_model()}, {cores()} cores, TensorFlow {tf.__version__}, batch {BATCH}")
    shares = []
    for name, size in NETWORKS.items():
        step, *mixers = cheapest(works(name, size), rounds)
        shares += [seconds / step for seconds in mixers]
        names = [op.name for op in OPERATIONS.values() if op.where == "batch"]
        mixing = ", ".join(
            f"{op} {1000 * seconds:.1f} ms = {100 * seconds / step:.2f} %"
            for op, seconds in zip(names, mixers, strict=True)
        )
        print(f"{name} at {size} pixels: step {1000 * step:.0f} ms; {mixing}", flush=True)
    return 0 if max(shares) <= MAX_SHARE else 1


def works(name: str, size: int) -> list[Callable[[], object]]:
    """A training step, and the mixing of its batch by each operation."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (BATCH, size, size, 3), np.uint8)
    labels = rng.integers(0, CLASSES, BATCH)
    step = training_step(edgecls.build_model(name, CLASSES, size))
    inputs = tf.constant(pixels, tf.float32), tf.constant(labels, tf.int32)
    targets = np.eye(CLASSES, dtype=np.float32)[labels]
    mixers = [
        Mixer(Augment.model_validate(only(**{op.name: {}})))
        for op in OPERATIONS.values()
        if op.where == "batch"
    ]
    return [
        lambda: float(step(*inputs)),
        *(lambda mixer=mixer: mixer(pixels, targets, 0) for mixer in mixers),
    ]


def cheapest(candidates: list[Callable[[], object]], rounds: int) -> list[float]:
    """Processor seconds of each, the least of the rounds in which they take turns."""
    for work in candidates:
        work()  # the first step is traced
    best = [float("inf")] * len(candidates)
    for _ in range(rounds):
        for i, work in enumerate(candidates):
            started = time.process_time()
            work()
            best[i] = min(best[i], time.process_time() - started)
    return best


if __name__ == "__main__":
    raise SystemExit(main())
