"""The last touch of a quantization-aware network: what the int8 file will round anyway is rounded here."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers as kl

from edgecls.quantize import layers as ql
from edgecls.quantize.control import measure_kernels
from edgecls.quantize.graph import Graph, Op, Ref, trace
from edgecls.quantize.quantizers import STEPS

# XNNPACK refuses an operator (LiteRT 2.3 even crashes on it) if one unit of its accumulator is more than 256 steps of
# its output, as it is where all outputs have died.
UNITS = 128
LEAST_GAIN = 1e-5  # of a normalization, for the same reason at the other end
KERNEL_STEPS = 127
LARGEST_BIAS = 2.0**30  # steps; the file has 32 bits for them


def finalize(model: keras.Model) -> None:
    """Fit kernel ranges, biases and dead ranges to the file. Call it when training has ended, before saving.

    An int8 convolution keeps its bias in steps of (input step * kernel step), about a thousandth of an output step.
    That moves one value in a thousand to its neighbour, and in a deep network such flips grow to several steps at the
    output. So biases are put on that grid, which is far below what training can feel.
    """
    measure_kernels(model)
    _Finisher(trace(model)).run()


class _Finisher:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.makers = {op.output: op for op in graph.ops}

    def run(self) -> None:
        for op in self.graph.ops:
            if isinstance(op.layer, ql.FreezableBatchNormalization) and op.layer.gamma is not None:
                gamma = op.layer.gamma.numpy()
                op.layer.gamma.assign(np.where(np.abs(gamma) < LEAST_GAIN, LEAST_GAIN, gamma))
        for op in self.graph.ops:  # in order: a widened range is the input of what follows
            if isinstance(op.layer, ql.QuantizedKernel):
                self._snap_bias(op)
            elif isinstance(op.layer, ql.Quantize) and not op.layer.fixed and op.call == 0:
                low, high = op.layer.range
                width = float(np.max(self._unit(op.inputs[0]))) * STEPS / UNITS
                if high - low < width:
                    op.layer.set_range(low, low + width)

    def _step(self, ref: Ref) -> float:
        """The step of the grid that ``ref`` lies on, behind pads, pools and the like; 0 if on none."""
        op = self.makers[ref]
        while not isinstance(op.layer, ql.Quantize):
            if not op.inputs:
                return 0.0
            op = self.makers[op.inputs[0]]
        low, high = op.layer.range
        return (high - low) / STEPS

    def _unit(self, ref: Ref) -> np.ndarray | float:
        """One unit of the integer accumulator from which ``ref`` comes, for each channel."""
        op = self.makers[ref]
        layer = op.layer
        if isinstance(layer, ql.QuantizedKernel):
            return self._step(op.inputs[0]) * _kernel_step(layer)
        if isinstance(layer, ql.ConstantConv2D):
            return self._step(op.inputs[0]) * np.abs(layer.scale) / KERNEL_STEPS
        if isinstance(layer, ql.FreezableBatchNormalization):
            return self._unit(op.inputs[0]) * np.abs(_gain(layer)) * layer.output_scale
        if isinstance(layer, ql.ScaledHardSwish):
            return self._step(op.inputs[0]) * 6.0 / STEPS
        steps = [self._step(ref) for ref in op.inputs]
        if isinstance(layer, kl.Multiply):
            return float(np.prod(steps))
        if isinstance(layer, kl.Add | kl.GlobalAveragePooling2D):
            return max(steps)
        return self._unit(op.inputs[0]) if op.inputs else 0.0

    def _snap_bias(self, op: Op) -> None:
        """Round the bias that the converter will find for ``op``: its own, or that of the normalization after it."""
        layer = op.layer
        consumers = self.graph.consumers(op.output)
        norm = consumers[0].layer if consumers else None
        if layer.use_bias:
            bias = _float64(layer.bias) * layer.output_scale + layer.output_shift
            step = self._bias_step(op, bias)
            layer.bias.assign((np.rint(bias / step) * step - layer.output_shift) / layer.output_scale)
        elif isinstance(norm, ql.FreezableBatchNormalization) and norm.beta is not None:
            gain = _gain(norm)
            shift = -_float64(norm.moving_mean) * gain
            bias = _float64(norm.beta) + shift
            step = self._bias_step(op, bias / np.abs(gain)) * np.abs(gain)
            norm.beta.assign(np.rint(bias / step) * step - shift)

    def _bias_step(self, op: Op, bias: np.ndarray) -> np.ndarray:
        """The step of the bias of ``op``. A kernel on a grid too fine for it (dead again) gets a coarser one."""
        step = self._step(op.inputs[0])
        least = np.abs(bias) / (LARGEST_BIAS * step) * KERNEL_STEPS
        bound = np.maximum(_float64(op.layer.ranges["max_var"]), least)
        op.layer.ranges["max_var"].assign(bound)
        op.layer.ranges["min_var"].assign(-bound)
        return step * _kernel_step(op.layer)


def _float64(variable: keras.Variable) -> np.ndarray:
    return variable.numpy().astype(np.float64)


def _kernel_step(layer: ql.QuantizedKernel) -> np.ndarray:
    return _float64(layer.ranges["max_var"]) / KERNEL_STEPS


def _gain(norm: ql.FreezableBatchNormalization) -> np.ndarray:
    gain = 1.0 / np.sqrt(_float64(norm.moving_variance) + norm.epsilon)
    return gain * (1.0 if norm.gamma is None else _float64(norm.gamma))
