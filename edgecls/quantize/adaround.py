"""AdaRound: whether each weight is rounded up or down is learned, layer by layer, from the float network's outputs.

Nearest rounding makes the least error of each weight, and not of a layer's output, where errors can cancel. A variable
for each weight says how far it is rounded up, from 0 to 1; it learns to bring the layer's outputs, of inputs that are
rounded already, to those of the float network, and a regularization drives it to one of the ends (Nagel et al., 2020,
https://arxiv.org/abs/2004.10568; here outputs are compared before the activation function).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from edgecls.graph import trace
from edgecls.quantize import control
from edgecls.quantize.layers import QuantizedKernel
from edgecls.quantize.ptq import run, undo_corrections
from edgecls.quantize.quantizers import KERNEL_STEPS

Tensor = Any

STEPS = 500
RATE = 0.01
BATCH = 16
WEIGHT = 0.01  # of the regularization; the error is 1 where rounding is to the nearest
WARM = 0.2  # share of the steps before it begins
BETA = 20.0, 2.0  # its exponent, from the first step to the last
STRETCH = 0.1  # a sigmoid reaches 0 and 1 if it is stretched so far beyond
ON_GRID = 1e-3  # steps; nearer weights are not rounded


def learn_rounding(model: keras.Model, pixels: Any, steps: int = STEPS) -> dict[str, float]:
    """Round each weight of the kernels up or down, so that outputs on real images are those of the float network.

    A channel for which that is not better than nearest rounding on the images is rounded to the nearest. The kernels
    are on their grids afterwards. Corrections of biases are taken back: correct them after it. It is deterministic.

    Args:
        model: From ``quantize_model``, calibrated; changed in place.
        pixels: Images as the network takes them, [batch, height, width, channels]. All are in memory at once; some
            tens are enough.
        steps: Of the optimization, for each layer.

    Returns:
        By the name of the layer, the mean squared error of its output as a share of that of nearest rounding.

    Example:
        >>> from edgecls.quantize import calibrate, quantize_model
        >>> image = keras.Input((8, 8, 3))
        >>> network = quantize_model(keras.Model(image, keras.layers.Conv2D(4, 3, name="conv")(image)))
        >>> images = np.random.default_rng(0).normal(size=(4, 8, 8, 3))
        >>> ranges = calibrate(network, [images])
        >>> learn_rounding(network, images, steps=20)["conv"] <= 1.0
        True
    """
    images = tf.cast(pixels, tf.float32)
    undo_corrections(model)
    calls = trace(model).calls
    kernels = [layer for layer in model.layers if isinstance(layer, QuantizedKernel)]
    names = {layer.name for layer in kernels if calls[layer.name] == 1}  # type: ignore[attr-defined]
    targets: dict[str, Tensor] = {}
    shares: dict[str, float] = {}

    def record(layer: Any, inputs: Tensor, outputs: Tensor) -> Tensor:
        targets[layer.name] = outputs
        return outputs

    def learn(layer: Any, inputs: Tensor, outputs: Tensor) -> Tensor:
        rounding = _Rounding(layer, inputs, targets.pop(layer.name))
        shares[layer.name] = rounding.learn(steps)
        return layer(inputs)

    with control.fake_quantization(model, on=False):
        run(model, images, names, record)
    run(model, images, names, learn)
    return shares


class _Rounding:
    """How the kernel of ``layer`` is rounded, for ``inputs`` whose outputs should be ``targets``."""

    def __init__(self, layer: Any, inputs: Tensor, targets: Tensor) -> None:
        self.layer, self.inputs, self.targets = layer, inputs, targets
        enabled, layer.enabled = layer.enabled, False
        kernel = layer.quantized_kernel(False)
        layer.enabled = enabled
        self.step = tf.convert_to_tensor(layer.ranges["max_var"]) / KERNEL_STEPS
        counts = tf.clip_by_value(kernel / self.step, -float(KERNEL_STEPS), float(KERNEL_STEPS))
        self.nearest = tf.round(counts)
        self.floor = tf.floor(counts)
        self.fixed = tf.abs(counts - self.nearest) < ON_GRID
        part = (counts - self.floor + STRETCH) / (1 + 2 * STRETCH)
        self.up = tf.Variable(tf.math.log(part / (1 - part)))

    def learn(self, steps: int) -> float:
        """Learn, write the kernel, and return the share of the error of nearest rounding that is left."""
        before = self._errors(self.nearest, self.inputs, self.targets)
        self._optimize(tf.constant(steps), 1.0 / tf.maximum(before, 1e-12 * tf.reduce_max(before) + 1e-30))
        learned = self._counts(tf.round(self._share_up()))
        after = self._errors(learned, self.inputs, self.targets)
        better = after < before
        counts = tf.where(self._of_outputs(better), learned, self.nearest)
        kernel = np.asarray(counts * self.step, np.float64).reshape(self.layer.kernel.shape)
        self.layer.kernel.assign(kernel / self.layer.kernel_factor)
        left, nearest = tf.reduce_sum(tf.where(better, after, before)), tf.reduce_sum(before)
        return float(left / nearest) if nearest > 0 else 1.0

    def _optimize(self, steps: Tensor, weights: Tensor) -> None:
        optimizer = keras.optimizers.Adam(RATE)
        up = keras.Variable(self.up, name="up")
        optimizer.build([up])
        count = int(self.inputs.shape[0])

        @tf.function
        def learn() -> None:
            for step in tf.range(steps):
                images = (step * BATCH + tf.range(min(BATCH, count))) % count
                done = tf.cast(step, tf.float32) / tf.cast(steps, tf.float32)
                with tf.GradientTape() as tape:
                    share = self._share_up(up.value)
                    error = self._errors(
                        self._counts(share), tf.gather(self.inputs, images), tf.gather(self.targets, images)
                    )
                    beta = BETA[0] + (BETA[1] - BETA[0]) * tf.maximum(done - WARM, 0.0) / (1 - WARM)
                    between = tf.reduce_sum(1 - tf.abs(2 * share - 1) ** beta)
                    loss = tf.reduce_sum(error * weights) + tf.where(done < WARM, 0.0, WEIGHT) * between
                optimizer.apply([tape.gradient(loss, up.value)], [up])

        learn()
        self.up.assign(up.value)

    def _share_up(self, up: Tensor = None) -> Tensor:
        sigmoid = tf.sigmoid(self.up if up is None else up)
        return tf.clip_by_value(sigmoid * (1 + 2 * STRETCH) - STRETCH, 0.0, 1.0)

    def _counts(self, share: Tensor) -> Tensor:
        return tf.where(self.fixed, self.nearest, self.floor + share)

    def _errors(self, counts: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """The mean squared error of each output channel with a kernel of ``counts`` steps."""
        kernel = counts * self.step
        self.layer.quantized_kernel = lambda training: kernel
        outputs = self.layer.call(inputs, training=False)
        del self.layer.quantized_kernel
        return tf.reduce_mean((outputs - targets) ** 2, list(range(len(outputs.shape) - 1)))

    def _of_outputs(self, values: Tensor) -> Tensor:
        """``values`` of the output channels in a shape that broadcasts over the kernel."""
        transposed = isinstance(self.layer, keras.layers.Conv2DTranspose)
        return values[:, None] if transposed else values
