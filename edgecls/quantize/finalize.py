"""The last step of a quantization-aware network: do to it what the converter will do.

An int8 file has no batch normalization, its kernels are integers, and its biases lie on the grid of the accumulator.
When the network is like that too, its ranges are those of the file, and inference can be exact.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers as kl

from edgecls.graph import Graph, Op, Ref, trace
from edgecls.quantize import exact
from edgecls.quantize import layers as ql
from edgecls.quantize.control import measure_kernels
from edgecls.quantize.folding import Line, float64
from edgecls.quantize.quantizers import KERNEL_STEPS, STEPS
from edgecls.quantize.rules.arithmetic import QuantizedAdd
from edgecls.quantize.rules.norm import FreezableBatchNormalization

# XNNPACK refuses an operator (LiteRT 2.3 even crashes on it) if one unit of its accumulator is more than 256 steps of
# its output. That happens where all outputs are nearly zero.
UNITS = 128
FINEST_TERM = 1000.0  # a term's step may be 1024 times finer than the sum's
LEAST_GAIN = 1e-5  # of a normalization: a smaller one makes the unit too small in the same way
LOWEST = -128  # of int8
LARGEST_BIAS = 2.0**30  # steps; the file has 32 bits for them


def finalize(model: keras.Model) -> None:
    """Make ``model`` the network of the file: call it when training has ended, before saving.

    Batch normalizations are folded, kernels and biases put on their grids, ranges of dead activations widened to what
    the runtime takes. From then on inference computes the file's integers (see ``exact``), and training is refused.
    A second call does nothing.
    """
    if any(getattr(layer, "steps", None) for layer in model.layers):
        return
    _Finisher(trace(model)).run(model)


class _Finisher:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def run(self, model: keras.Model) -> None:
        for op in self.graph.ops:
            if isinstance(op.layer, ql.QuantizedKernel):
                op.layer.absorb_offset()
        for op in self.graph.ops:
            before = self.graph.makers[op.inputs[0]].layer if op.inputs else None
            if isinstance(op.layer, FreezableBatchNormalization) and isinstance(before, exact.Exact):
                _fold(op.layer, before)  # one that stays in float has no such layer before it
        measure_kernels(model)
        while self._widen():  # a grid that two operations share can be the input of an earlier one
            pass
        for op in self.graph.ops:
            if isinstance(op.layer, ql.QuantizedKernel) and op.call == 0:
                _put_on_grids(op.layer, self._step(op.inputs[0]))
            elif isinstance(op.layer, ql.ConstantConv2D):
                op.layer.round_offset(self._step(op.inputs[0]))
            elif isinstance(op.layer, ql.Quantize):
                self._settle(op.layer, op.inputs[0])

    def _widen(self) -> bool:
        """Give all grids the least width that the runtime takes; whether any was too narrow."""
        before = [grid.range for grid in self._grids()]
        for op in self.graph.ops:  # in order: a widened range is the input of what follows
            if isinstance(op.layer, ql.QuantizedKernel):
                _coarsen(op.layer, self._step(op.inputs[0]))
            elif isinstance(op.layer, ql.Quantize):
                maker = self._maker(op.inputs[0])
                steps = [self._step(ref) for ref in maker.inputs]
                if isinstance(maker.layer, exact.Exact) and all(steps):
                    _at_least(op.layer, float(np.max(maker.layer.unit(steps))) * STEPS / UNITS)
                    if isinstance(maker.layer, QuantizedAdd):
                        for ref in maker.inputs:
                            _at_least(self._grid(ref), _step(op.layer) * STEPS / FINEST_TERM)
        return before != [grid.range for grid in self._grids()]

    def _grids(self) -> list[ql.Quantize]:
        return [op.layer for op in self.graph.ops if isinstance(op.layer, ql.Quantize) and op.call == 0]

    def _settle(self, grid: ql.Quantize, ref: Ref) -> None:
        """Tell ``grid`` and those of the inputs to the layer that computes ``ref``."""
        maker = self._maker(ref)
        grids = [self._grid(source) for source in maker.inputs]
        if isinstance(maker.layer, exact.Exact) and all(grids):
            grids = [*grids, grid]
            maker.layer.steps = tuple(_step(grid) for grid in grids)
            maker.layer.zeros = tuple(LOWEST - round(grid.range[0] / _step(grid)) for grid in grids)

    def _maker(self, ref: Ref) -> Op:
        """The operation whose result is rounded to the grid that ``ref`` is put on."""
        op = self.graph.makers[ref]
        while op.inputs and not isinstance(op.layer, exact.Exact | ql.Quantize):
            op = self.graph.makers[op.inputs[0]]
        return op

    def _grid(self, ref: Ref) -> Any:
        """The grid that ``ref`` lies on, found through pads, pools and the like; None if there is none."""
        op = self.graph.makers[ref]
        while not isinstance(op.layer, ql.Quantize):
            if not op.inputs:
                return None
            op = self.graph.makers[op.inputs[0]]
        return op.layer

    def _step(self, ref: Ref) -> float:
        """The step of the grid that ``ref`` lies on; 0 if on none."""
        grid = self._grid(ref)
        return _step(grid) if grid else 0.0


def _at_least(grid: ql.Quantize, width: float) -> None:
    low, high = grid.range
    if not grid.fixed and high - low < width:
        grid.set_range(low, low + width)


def _fold(norm: FreezableBatchNormalization, layer: Any) -> None:
    """Put ``norm`` into the linear ``layer`` before it."""
    line = Line.of(norm, LEAST_GAIN)
    gain, shift = line.gain * norm.output_scale, line.shift * norm.output_scale
    if isinstance(layer, ql.ConstantConv2D):
        layer.scale = (np.array(layer.scale) * gain).tolist()
        layer.offset = (np.array(layer.offset) * gain + shift).tolist()
    else:
        layer.kernel.assign((_channels_last(layer, layer.kernel) * gain).reshape(layer.kernel.shape))
        layer.bias.assign(float64(layer.bias) * gain + shift)
    norm.folded = True


def _coarsen(layer: ql.QuantizedKernel, source: float) -> None:
    """Give a channel whose kernel is nearly zero a grid that is not too fine for its bias."""
    bias = float64(layer.bias) * layer.output_scale + layer.output_shift
    least = np.abs(bias) / (LARGEST_BIAS * source) * KERNEL_STEPS
    least = least if layer.per_channel else least.max()
    layer.ranges["max_var"].assign(np.maximum(float64(layer.ranges["max_var"]), least))
    layer.ranges["min_var"].assign(-float64(layer.ranges["max_var"]))


def _put_on_grids(layer: ql.QuantizedKernel, source: float) -> None:
    """Round kernel and bias to what int8 and int32 hold, so that the converter finds the same integers."""
    weights: Any = layer
    bias = float64(weights.bias) * layer.output_scale + layer.output_shift
    step, factor = float64(layer.ranges["max_var"]) / KERNEL_STEPS, layer.kernel_factor
    kernel = np.rint(_channels_last(layer, weights.kernel) * factor / step) * step / factor
    weights.kernel.assign(kernel.reshape(weights.kernel.shape))
    bias = np.rint(bias / (source * step)) * source * step
    weights.bias.assign((bias - layer.output_shift) / layer.output_scale)


def _step(grid: ql.Quantize) -> float:
    low, high = np.float32(grid.range[0]), np.float32(grid.range[1])
    return (float(high) - float(low)) / STEPS


def _channels_last(layer: Any, kernel: keras.Variable) -> np.ndarray:
    """``kernel`` with all output channels of a depthwise convolution on the last axis."""
    values = float64(kernel)
    return values.reshape((1, *values.shape[:2], -1)) if isinstance(layer, kl.DepthwiseConv2D) else values
