"""Bare operations that select: indices and slices, splits, stacks of channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras import layers
from keras.src.ops import numpy as knp

from edgecls.quantize.registry import lowers, missing, plans
from edgecls.quantize.rules.shapes import same_grid
from edgecls.zoo import layers as zoo_layers

if TYPE_CHECKING:
    from edgecls.graph import Op
    from edgecls.quantize.lower import Lowering
    from edgecls.quantize.plan import Plan, Value

Tensor = Any

MAP = 4  # dimensions of a batch of maps
MOST_REVERSED = 4  # channels


@lowers(knp.GetItem)
def _slice(lowering: Lowering, op: Any, inputs: Sequence[Any]) -> Tensor:
    """Runs of height, width and channels, every other row and column, and channels in reverse."""
    x, key = inputs
    keys = list(key) if isinstance(key, tuple) else [key]
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        keys[at : at + 1] = [slice(None)] * (len(x.shape) - len(keys) + 1)
    keys += [slice(None)] * (len(x.shape) - len(keys))
    *others, last = keys
    if isinstance(last, int) and all(k == slice(None) for k in others):
        channel = last % x.shape[-1]
        x = lowering.apply(zoo_layers.Channels(channel, channel + 1, name=f"{op.name}.channel"), x)
        return lowering.apply(layers.Reshape(x.shape[1:-1], name=op.name), x)
    what = "an index, or a slice with such steps; runs of rows, columns and channels have one"
    if keys[0] != slice(None) or len(keys) not in (2, MAP) or not all(isinstance(k, slice) for k in keys):
        raise missing(op, what)
    *places, (start, stop, step) = (k.indices(size) for k, size in zip(keys[1:], x.shape[1:], strict=True))
    reverse = keys[-1] == slice(None, None, -1) and x.shape[-1] <= MOST_REVERSED
    if any(place[2] < 1 for place in places) or not (step == 1 or reverse):
        raise missing(op, what)
    crops = [(first, size - last) for (first, last, _), size in zip(places, x.shape[1:], strict=False)]
    if any(map(any, crops)):
        x = lowering.apply(layers.Cropping2D(crops, name=f"{op.name}.crop"), x)
    strides = tuple(place[2] for place in places)
    if any(stride > 1 for stride in strides):
        x = lowering.apply(layers.MaxPooling2D(1, strides, name=f"{op.name}.steps"), x)
    if reverse:
        return ReverseChannels(name=lowering.name(op.name))(x)
    if (start, stop) != (0, x.shape[-1]):
        x = lowering.apply(zoo_layers.Channels(start, stop, name=op.name), x)
    return x


@keras.saving.register_keras_serializable(package="edgecls")
class ReverseChannels(layers.Layer):
    """RGB to BGR."""

    def call(self, inputs: Tensor) -> Tensor:
        parts = [inputs[..., i : i + 1] for i in reversed(range(inputs.shape[-1]))]
        return keras.ops.concatenate(parts, axis=-1)


@plans(ReverseChannels)
def _reversed(plan: Plan, op: Op, values: list[Value]) -> Value:
    return same_grid(plan, op, values[0], again=True)


@lowers(knp.Split)
def _split(lowering: Lowering, op: Any, inputs: Tensor) -> list[Tensor]:
    if op.axis not in (-1, len(inputs.shape) - 1):
        raise missing(op, f"a split of axis {op.axis}; that of the channels has one")
    channels, parts = inputs.shape[-1], op.indices_or_sections
    ends = (
        [channels * (i + 1) // parts for i in range(parts)] if isinstance(parts, int) else [*parts, channels]
    )
    starts = [0, *ends[:-1]]
    return [
        lowering.apply(zoo_layers.Channels(start, stop, name=f"{op.name}.{i}"), inputs)
        for i, (start, stop) in enumerate(zip(starts, ends, strict=True))
    ]


@lowers(knp.Stack)
def _stack(lowering: Lowering, op: Any, inputs: Sequence[Tensor]) -> Tensor:
    """Along a new last axis. Channels that are put together in reverse, as ``preprocess_input`` does, are one operation."""
    tensors = list(inputs)
    if op.axis not in (-1, len(tensors[0].shape)):
        raise missing(op, f"a stack along axis {op.axis}; along a new last one there is one")
    sources = [_channel(x) for x in tensors]
    x = sources[0][0]
    if x is not None and sources == [(x, i) for i in reversed(range(x.shape[-1]))]:
        return ReverseChannels(name=lowering.name(op.name))(x)
    parts = [
        layers.Reshape((*t.shape[1:], 1), name=lowering.name(f"{op.name}.{i}"))(t)
        for i, t in enumerate(tensors)
    ]
    return lowering.apply(layers.Concatenate(-1, name=op.name), parts)


def _channel(x: Tensor) -> tuple[Tensor | None, int]:
    """The map of which ``x`` is one channel, without the axis, and which; None if it is not."""
    reshaped = x._keras_history.operation
    if not isinstance(reshaped, layers.Reshape):
        return None, 0
    cut = reshaped.input._keras_history.operation
    return (cut.input, cut.start) if isinstance(cut, zoo_layers.Channels) else (None, 0)
