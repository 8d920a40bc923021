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


@plans(*floats.NORMS, vit.Tokens)
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
    row = layers.Reshape((1, *inputs.shape[1:]), name=lowering.name(f"{layer.name}.row"))(inputs)
    pooled = lowering.apply(pool(name=layer.name), row)
    if not layer.keepdims:
        return pooled
    return layers.Reshape((1, inputs.shape[-1]), name=lowering.name(f"{layer.name}.keep"))(pooled)
