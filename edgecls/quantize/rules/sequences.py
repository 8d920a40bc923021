"""Layers of transformers beside attention: normalizations in float, and operations on sequences [batch, length, channels].

A layer normalization reads all channels of a position, and int8 kernels have no square root. So it stays in float between
DEQUANTIZE and QUANTIZE, which XNNPACK runs, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keras import layers

from edgecls.graph import Op
from edgecls.quantize import floats
from edgecls.quantize.registry import lowers, plans
from edgecls.quantize.rules.shapes import same_grid
from edgecls.zoo import vit

if TYPE_CHECKING:
    from edgecls.quantize.lower import Lowering
    from edgecls.quantize.plan import Plan, Value

Tensor = Any


@plans(*floats.NORMS, vit.Tokens, floats.Call)
def _in_float(plan: Plan, op: Op, values: list[Value]) -> Value:
    return floats.keep(plan, op, values)


@plans(layers.Cropping1D, layers.ZeroPadding1D)
def _moved(plan: Plan, op: Op, values: list[Value]) -> Value:
    return same_grid(plan, op, values[0], again=True)


@lowers(layers.GlobalAveragePooling1D, layers.GlobalMaxPooling1D)
def _pool(lowering: Lowering, layer: Any, inputs: Tensor) -> Tensor:
    """The pool of a map of one row."""
    mean = isinstance(layer, layers.GlobalAveragePooling1D)
    pool = layers.GlobalAveragePooling2D if mean else layers.GlobalMaxPooling2D
    pooled = lowering.apply(pool(name=layer.name), _row(lowering, layer, inputs))
    if not layer.keepdims:
        return pooled
    return layers.Reshape((1, inputs.shape[-1]), name=lowering.name(f"{layer.name}.keep"))(pooled)


@lowers(layers.AveragePooling1D, layers.MaxPooling1D)
def _windows(lowering: Lowering, layer: Any, inputs: Tensor) -> Tensor:
    size, (stride,) = (1, *layer.pool_size), layer.strides
    if isinstance(layer, layers.AveragePooling1D):  # becomes a depthwise convolution; see _in_a_row
        twin = layers.AveragePooling2D(size, stride, layer.padding, name=layer.name)
    else:
        twin = layers.MaxPooling2D(size, (1, stride), layer.padding, name=layer.name)
    return _sequence(lowering, layer, lowering.apply(twin, _row(lowering, layer, inputs)))


@lowers(layers.Conv1D, layers.DepthwiseConv1D)
def _convolution(lowering: Lowering, layer: Any, inputs: Tensor) -> Tensor:
    """The convolution of a map of one row, with a kernel of one row."""
    depthwise = isinstance(layer, layers.DepthwiseConv1D)
    keys: dict[str, Any] = {"use_bias": layer.use_bias, **_in_a_row(layer)}
    if depthwise:
        like: Any = layers.DepthwiseConv2D(depth_multiplier=layer.depth_multiplier, **keys)
    else:
        like = layers.Conv2D(layer.filters, groups=layer.groups, **keys)
    row = _row(lowering, layer, _causal(lowering, layer, inputs))
    outputs = lowering.clone(layer, like=like, weights={"kernel": "kernel"})(row)
    return lowering.activate(layer.activation, f"{layer.name}.act", _sequence(lowering, layer, outputs))


@lowers(layers.SeparableConv1D)
def _separable(lowering: Lowering, layer: Any, inputs: Tensor) -> Tensor:
    keys = {"use_bias": False, **_in_a_row(layer)}
    first = layers.DepthwiseConv2D(depth_multiplier=layer.depth_multiplier, **keys)
    second = layers.Conv2D(layer.filters, 1, use_bias=layer.use_bias)
    x = _row(lowering, layer, _causal(lowering, layer, inputs))
    x = lowering.clone(layer, "depthwise", first, {"kernel": "depthwise_kernel"})(x)
    x = lowering.clone(layer, "", second, {"kernel": "pointwise_kernel"})(x)
    return lowering.activate(layer.activation, f"{layer.name}.act", _sequence(lowering, layer, x))


def _in_a_row(layer: Any) -> dict[str, Any]:
    """What a convolution of a sequence is as one of a map."""
    stride = layer.strides[0]  # both strides of a depthwise one have to be equal; a row has no other place
    return {
        "kernel_size": (1, *layer.kernel_size),
        "strides": (stride, stride),
        "dilation_rate": (1, *layer.dilation_rate),
        "padding": "valid" if layer.padding == "causal" else layer.padding,
    }


def _causal(lowering: Lowering, layer: Any, inputs: Tensor) -> Tensor:
    """A sequence with the zeros in front that a causal convolution sees."""
    if layer.padding != "causal":
        return inputs
    zeros = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
    return layers.ZeroPadding1D((zeros, 0), name=lowering.name(f"{layer.name}.pad"))(inputs)


def _row(lowering: Lowering, layer: Any, inputs: Tensor) -> Tensor:
    """A sequence as a map of one row."""
    return layers.Reshape((1, *inputs.shape[1:]), name=lowering.name(f"{layer.name}.row"))(inputs)


def _sequence(lowering: Lowering, layer: Any, row: Tensor) -> Tensor:
    """A map of one row as a sequence."""
    return layers.Reshape(row.shape[2:], name=lowering.name(f"{layer.name}.sequence"))(row)
