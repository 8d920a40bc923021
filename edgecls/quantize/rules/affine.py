"""A factor and a summand for each channel: normalizations of pixels, and constant scales inside a network."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import layers

from edgecls.graph import Op
from edgecls.quantize import layers as ql
from edgecls.quantize.quantizers import STEPS
from edgecls.quantize.registry import lowers, plans
from edgecls.zoo import layers as zoo_layers

if TYPE_CHECKING:
    from edgecls.quantize.lower import Lowering
    from edgecls.quantize.plan import Plan, Value

Tensor = Any

ZERO_TOLERANCE = 0.02  # pixels: recipes round 127 / 255 to three digits
GATE_TOP = 6.0  # of a hard-sigmoid that is written out
TOLERANCE = 1e-6  # of a constant that is written out
LEAST = 1e-6  # of a factor, relative to the largest: a kernel of zeros has no grid


@lowers(zoo_layers.Normalize)
def _normalize(lowering: Lowering, layer: Any, inputs: Tensor) -> Tensor:
    return _rescaling(lowering, layer, inputs, *layer.line)


@lowers(layers.Rescaling)
def _rescale(lowering: Lowering, layer: Any, inputs: Tensor) -> Tensor:
    return _rescaling(lowering, layer, inputs, layer.scale, layer.offset)


@lowers(layers.Normalization)
def _normalization(lowering: Lowering, layer: Any, inputs: Tensor) -> Tensor:
    mean, std = (np.array(values, float).reshape(-1) for values in (layer.mean, np.sqrt(layer.variance)))
    std = np.maximum(std, 1e-7)
    scale, offset = (std, mean) if layer.invert else (1 / std, -mean / std)
    return _rescaling(lowering, layer, inputs, scale, offset)


def _rescaling(lowering: Lowering, layer: Any, inputs: Tensor, scale: Any, offset: Any) -> Tensor:
    """One ``Rescaling``, also for several in a row."""
    scale, offset = np.array(scale, float), np.array(offset, float)
    before = inputs._keras_history.operation
    if isinstance(before, layers.Rescaling):
        scale, offset = scale * np.array(before.scale), offset + scale * np.array(before.offset)
        inputs = before.input
    one_factor = not offset.any() and np.ptp(scale) == 0
    gate = _gate(before, float(np.mean(scale))) if one_factor else None
    if gate:
        return zoo_layers.HardSigmoid(*gate, name=lowering.name(layer.name))(
            before.input._keras_history.operation.input
        )
    return layers.Rescaling(scale.tolist(), offset.tolist(), name=lowering.name(layer.name))(inputs)


def _gate(before: Any, scale: float) -> tuple[float, float] | None:
    """Slope and offset of the hard-sigmoid that ``scale * before`` is, if it is one: ``relu6(a * x + b) / 6``."""
    if (
        type(before) is not layers.ReLU
        or before.max_value != GATE_TOP
        or abs(scale * GATE_TOP - 1) > TOLERANCE
    ):
        return None
    line = before.input._keras_history.operation
    if not isinstance(line, layers.Rescaling) or np.size(line.scale) > 1 or np.size(line.offset) > 1:
        return None
    return float(line.scale) / GATE_TOP, float(line.offset) / GATE_TOP


@plans(layers.Rescaling)
def _affine(plan: Plan, op: Op, values: list[Value]) -> Value:
    value, channels = values[0], op.layer.output.shape[-1]
    scale, offset = (np.broadcast_to(np.array(x, float), channels) for x in (op.layer.scale, op.layer.offset))
    if not value.node.inputs:
        return _pixels(plan, op, value, scale, offset)
    if scale[0] and np.ptp(scale) == np.ptp(offset) == 0:  # the same tensor, read otherwise
        other = value.scale / float(scale[0])
        return plan.same(op, value, scale=other, shift=value.shift - other * float(offset[0]))
    scale = np.where(np.abs(scale) < LEAST * np.abs(scale).max(), LEAST * np.abs(scale).max(), scale)
    factor = scale / value.scale
    config = {"scale": factor.tolist(), "offset": (offset - value.shift * factor).tolist()}
    node = plan.node(op.layer.name, ql.ConstantConv2D, [plan.on_grid(value)], config)
    return plan.result(op, node, linear=True)


def _pixels(plan: Plan, op: Op, value: Value, scale: np.ndarray, offset: np.ndarray) -> Value:
    """Pixels are integers: a normalization with one mean and one scale is just their grid's zero point and step."""
    low, high = offset, 255 * scale + offset
    zero = -offset[0] / scale[0]
    if (
        np.ptp(offset) < 1e-9
        and np.ptp(scale) < 1e-9
        and scale[0] > 0
        and abs(zero - round(zero)) < ZERO_TOLERANCE
        and 0 <= zero <= 255
    ):
        std = 1 / (255 * scale)
        config = {"mean": (-offset * std).tolist(), "std": std.tolist()}
        node = plan.node(op.layer.name, zoo_layers.Normalize, [value.node], config)
        result = plan.result(op, node)
        plan.on_grid(result, fixed=(float(low[0]), float(high[0])))
        return result
    stem = _stem(plan, op)
    if stem is not None and scale.all():
        return _in_kernel(plan, op, value, scale, offset, stem)
    source = plan.on_grid(value, fixed=(0.0, 255.0))
    config = {"scale": scale.tolist(), "offset": offset.tolist()}
    node = plan.node(op.layer.name, ql.ConstantConv2D, [source], config)
    ends = np.concatenate([low, high, [0.0]])
    step = float(np.ptp(ends)) / STEPS
    zero = math.floor(0.5 - float(ends.min()) / step)  # where it is halfway, runtimes would not agree on it
    result = plan.result(op, node)
    plan.on_grid(result, fixed=(-zero * step, (STEPS - zero) * step))
    return result


def _stem(plan: Plan, op: Op) -> Op | None:
    """The convolution, padded or not, that alone takes the normalized pixels."""
    after = plan.follower(op)
    while after is not None and isinstance(after.layer, layers.ZeroPadding2D):
        after = plan.follower(after)
    if after is None or not isinstance(after.layer, layers.Conv2D) or after.layer.name in plan.kept:
        return None
    return after if after.layer.groups == 1 and plan.graph.calls[after.layer.name] == 1 else None


def _in_kernel(plan: Plan, op: Op, value: Value, scale: np.ndarray, offset: np.ndarray, stem: Op) -> Value:
    """The kernel of ``stem`` normalizes; the pixels' own grid has a zero near the means, one for all channels.

    So the border is padded with one color in place of the channels' means: at most 13 of 255 away with ImageNet's.
    docs/quantize.md says what that costs in accuracy.
    """
    zero = int(np.clip(np.rint(np.mean(-offset / scale)), 0, 255))
    step = float(np.mean(np.abs(scale)))
    config = {"mean": [zero / 255] * len(scale), "std": [1 / (255 * step)] * len(scale)}
    node = plan.node(op.layer.name, zoo_layers.Normalize, [value.node], config)
    result = plan.result(op, node)
    plan.on_grid(result, fixed=(-zero * step, (255 - zero) * step))
    beside = offset + zero * scale
    plan.stems[stem.layer.name] = {
        "input_scale": (step / scale).tolist(),
        "input_offset": beside.tolist() if np.abs(beside).max() > ZERO_TOLERANCE * step else None,
    }
    return result


@plans(layers.InputLayer)
def _input(plan: Plan, op: Op, _: list[Value]) -> Value:
    config = {"batch_shape": op.layer.batch_shape, "dtype": op.layer.dtype}
    return plan.result(op, plan.node(op.layer.name, layers.InputLayer, [], config))
