"""scripts/bench_train.py compares formulations of one and the same convolution."""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
import bench_train


@pytest.mark.parametrize("name", bench_train.FORMULATIONS)
def test_formulations_compute_the_same(name: str) -> None:
    layer = keras.layers.Conv2D(64, 3, groups=32, padding="same", use_bias=False)
    layer.build((2, 6, 6, 64))
    inputs, kernel = tf.random.stateless_normal((2, 6, 6, 64), (1, 2)), layer.kernel.value
    # Group by group in NumPy: each output cell is a product of the 3x3 cells around it.
    padded = np.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    windows = windows.reshape(2, 6, 6, 32, 2, 3, 3)
    kernels = kernel.numpy().reshape(3, 3, 2, 32, 2)
    expected = np.einsum("nhwgcij,ijcgo->nhwgo", windows, kernels).reshape(2, 6, 6, 64)
    if name == "ours":  # a method of a layer of ours
        layer = bench_train.zoo_layers.GroupedConv2D.from_config(layer.get_config())
    computed = bench_train.FORMULATIONS[name](layer, inputs, kernel)
    np.testing.assert_allclose(computed, expected, atol=1e-5)
