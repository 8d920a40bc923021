"""Operations that move values and compute none."""

from __future__ import annotations

import numpy as np
from keras import layers, ops

from edgecls.weights.translate.registry import Node, translates
from edgecls.weights.translate.values import (
    Tensor,
    Unsupported,
    Value,
    aligned,
    as_maps,
    constant,
    reshaped,
    transposed,
    without,
)
from edgecls.zoo import layers as zoo_layers


@translates("Reshape", "Flatten", "Unsqueeze")
def _reshape(node: Node) -> Value:
    return reshaped(node.value(), node.shape, node.name)


@translates("Squeeze")
def _squeeze(node: Node) -> Value:
    x = node.value()
    ones = [axis for axis, size in enumerate(x.shape) if size == 1 and axis != x.axes[0]]
    axes = {axis % x.rank for axis in node.setting("axes", 1, ones)}
    for axis in sorted(axes, reverse=True):
        x = without(x, axis, node.part(f"axis{axis}"))
    return x


@translates("Transpose")
def _transpose(node: Node) -> Value:
    x = node.value()
    return transposed(x, node.setting("perm", default=list(range(x.rank))[::-1]))


@translates("Concat")
def _concat(node: Node) -> Value:
    given = [value for value in node.inputs if isinstance(value, Value)]
    values = aligned(given, node.name)
    place = values[0].place(node.setting("axis"))
    if not place:
        raise Unsupported("a concatenation of batches")
    tensors = iter(value.tensor for value in values)
    parts = [
        next(tensors) if isinstance(value, Value) else _repeated(node.array(i), values[0], place)
        for i, value in enumerate(node.inputs)
    ]
    if len(parts) == 1:
        return values[0]
    return values[0].with_tensor(layers.Concatenate(place, name=node.name)(parts))


def _repeated(array: np.ndarray, like: Value, place: int) -> Tensor:
    """A constant, such as the class token of a transformer, once for each image of the batch."""
    wide = constant(array.astype(np.float32), like)
    one = like.tensor[(slice(None),) * place + (slice(0, 1),)]
    if any(
        a not in (1, b)
        for i, (a, b) in enumerate(zip(wide.shape, like.tensor.shape, strict=True))
        if i not in (0, place)
    ):
        raise Unsupported(f"a constant of shape {list(array.shape)}")
    return ops.add(ops.zeros_like(one), wide)


@translates("Split")
def _split(node: Node) -> list[Value]:
    x, axis = node.value(), node.setting("axis", default=0)
    length, parts = x.shape[axis], len(node.shapes)
    width = -(-length // parts)
    sizes = node.setting("split", 1, [min(width, length - i * width) for i in range(parts)])
    ends = np.cumsum(sizes).tolist()
    return [
        _run(x, axis, stop - size, stop, f"{node.name}.{i}")
        for i, (size, stop) in enumerate(zip(sizes, ends, strict=True))
    ]


@translates("Slice")
def _slice(node: Node) -> Value:
    x, starts, stops = node.value(), node.setting("starts", 1), node.setting("ends", 2)
    axes = node.setting("axes", 3, list(range(len(starts))))
    steps = node.setting("steps", 4, [1] * len(starts))
    for i, (axis, start, stop, step) in enumerate(zip(axes, starts, stops, steps, strict=True)):
        first, last, stride = slice(start, stop, step).indices(x.shape[axis])
        if stride < 1:
            raise Unsupported("a slice that runs backwards")
        x = _run(x, axis, first, last, f"{node.name}.{i}", stride)
    return x


def _run(x: Value, axis: int, start: int, stop: int, name: str, step: int = 1) -> Value:
    """A run of an axis."""
    place = x.place(axis)
    if (start, step) == (0, 1) and stop >= x.shape[axis]:
        return x
    if not place:
        raise Unsupported("a part of a batch")
    if place == len(x.axes) - 1 and step == 1:
        return x.with_tensor(zoo_layers.Channels(start, stop, name=name)(x.tensor))
    return x.with_tensor(x.tensor[(slice(None),) * place + (slice(start, stop, step),)])


@translates("Gather")
def _gather(node: Node) -> Value:
    x, axis, index = node.value(), node.setting("axis", default=0), node.array(1)
    if index.ndim:
        raise Unsupported("an index of several places")
    at = index.item() % x.shape[axis]
    return without(_run(x, axis, at, at + 1, node.name), axis, node.part("shape"))


@translates("Pad")
def _pad(node: Node) -> Value:
    x, widths = node.value(), node.setting("pads", 1)
    mode, fill = node.setting("mode", default=b"constant").decode(), node.setting("value", 2, 0.0)
    axes = node.setting("axes", 3, list(range(x.rank)))
    batch, half = x.axes[0], len(widths) // 2
    pads = dict.fromkeys(x.axes, (0, 0))
    pads |= {axis % x.rank: (widths[i], widths[i + half]) for i, axis in enumerate(axes)}
    if mode == "edge" and max(widths) <= 1:  # one cell repeated is one cell mirrored
        mode = "symmetric"
    if min(widths) < 0 or any(pads[batch]) or mode not in ("constant", "reflect", "symmetric"):
        raise Unsupported(f"a {mode} padding of {widths}")
    if not any(widths):
        return x
    if x.rank == 4 and not batch and mode == "constant" and not fill and not any(pads[1]):
        x = as_maps(x, node.part("order"))
        return x.with_tensor(layers.ZeroPadding2D([pads[2], pads[3]], name=node.name)(x.tensor))
    ordered = [pads[axis] for axis in x.axes]
    values = {"constant_values": fill} if mode == "constant" else {}
    return x.with_tensor(ops.pad(x.tensor, ordered, mode, **values))


@translates("Resize", "Upsample")
def _resize(node: Node) -> Value:
    x = as_maps(node.value(), node.part("order"))
    mode = node.setting("mode", default=b"nearest").decode()
    corners = node.setting("coordinate_transformation_mode", default=b"half_pixel").decode()
    kinds = {"nearest": "nearest", "linear": "bilinear"}
    if mode not in kinds or corners == "align_corners" or node.shape[1] != x.shape[1]:
        raise Unsupported(f"{mode} resizing with {corners}")
    (height, width), (old_height, old_width) = node.shape[2:], x.shape[2:]
    if height % old_height or width % old_width:
        raise Unsupported("a resize by a broken factor")
    size = height // old_height, width // old_width
    return x.with_tensor(layers.UpSampling2D(size, interpolation=kinds[mode], name=node.name)(x.tensor))
