"""Pools and reductions, and the padding of windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from keras import layers, ops

from edgecls.weights.translate.registry import Node, translates
from edgecls.weights.translate.values import Unsupported, Value, as_maps, reshaped
from edgecls.zoo import pooling

Pads = list[tuple[int, int]]
LOWEST = float(np.finfo(np.float32).min)


def pair(node: Node, name: str) -> tuple[int, int]:
    values = tuple(node.setting(name, default=[1, 1]))
    if len(values) != 2:
        raise Unsupported(f"{len(values)} dimensions; of two it is known")
    return values


def padding_of(
    node: Node, x: Value, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int] = (1, 1)
) -> tuple[str, Pads]:
    """Keras' word for the padding, and the cells to pad before; none where the word says it."""
    pads, same = cells_of(node, x, kernel, strides, dilations)
    if not any(map(any, pads)):
        return "valid", []
    return ("same", []) if pads == same else ("valid", pads)


def cells_of(
    node: Node, x: Value, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int] = (1, 1)
) -> tuple[Pads, Pads]:
    """The cells that are padded, and those that Keras pads for ``"same"``."""
    spans = [(size - 1) * rate + 1 for size, rate in zip(kernel, dilations, strict=True)]
    if len(spans) != 2:
        raise Unsupported(f"{len(spans)} dimensions; of two it is known")
    sizes = x.shape[2:]
    totals = [
        max((-(-size // stride) - 1) * stride + span - size, 0)
        for size, span, stride in zip(sizes, spans, strides, strict=True)
    ]
    same = [(total // 2, total - total // 2) for total in totals]
    kind = node.setting("auto_pad", default=b"NOTSET").decode()
    given = node.setting("pads", default=[0, 0, 0, 0])
    pads = {
        "NOTSET": [(given[0], given[2]), (given[1], given[3])],
        "VALID": [(0, 0), (0, 0)],
        "SAME_UPPER": same,
        "SAME_LOWER": [(after, before) for before, after in same],
    }[kind]
    if node.setting("ceil_mode", default=0):  # the last window may need cells that no padding has
        ends = [
            (length - 1) * stride + span - size
            for length, stride, span, size in zip(node.shape[2:], strides, spans, sizes, strict=True)
        ]
        pads = [(before, max(after, end - before)) for (before, after), end in zip(pads, ends, strict=True)]
    if min(map(min, pads)) < 0:
        raise Unsupported("a negative padding")
    return pads, same


def _around_map(pads: Pads, size: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether it is the pool of ``zoo.pooling``: 3x3, stride 2, one cell on every side."""
    return (*size, *strides) == (3, 3, 2, 2) and pads == [(1, 1), (1, 1)]


@translates("MaxPool")
def _max_pool(node: Node) -> Value:
    x, size, strides = _pooled(node)
    padding, pads = padding_of(node, x, size, strides)
    if not pads:
        pool = layers.MaxPooling2D(size, strides, padding, name=node.name)
    elif isinstance(x.tensor._keras_history.operation, layers.ReLU):
        padded = layers.ZeroPadding2D(pads, name=node.part("pad"))(x.tensor)
        return x.with_tensor(layers.MaxPooling2D(size, strides, name=node.name)(padded))
    elif _around_map(pads, size, strides):
        pool = pooling.EdgeMaxPooling2D(name=node.name)
    else:
        padded = ops.pad(x.tensor, [(0, 0), *pads, (0, 0)], constant_values=LOWEST)
        return x.with_tensor(layers.MaxPooling2D(size, strides, name=node.name)(padded))
    return x.with_tensor(pool(x.tensor))


@translates("AveragePool")
def _average_pool(node: Node) -> Value:
    x, size, strides = _pooled(node)
    pads, same = cells_of(node, x, size, strides)
    counted, padded = node.setting("count_include_pad", default=0), any(map(any, pads))
    if not padded or (pads == same and not counted):  # Keras does not count what it pads
        padding = "same" if padded else "valid"
        return x.with_tensor(layers.AveragePooling2D(size, strides, padding, name=node.name)(x.tensor))
    if not counted and _around_map(pads, size, strides):
        return x.with_tensor(pooling.EdgeAveragePooling2D(name=node.name)(x.tensor))
    if counted and node.setting("ceil_mode", default=0):
        raise Unsupported("an average that counts some cells of the padding")
    maps = layers.ZeroPadding2D(pads, name=node.part("pad"))(x.tensor)
    result = layers.AveragePooling2D(size, strides, name=node.name)(maps)
    if not counted:
        result = ops.multiply(result, _shares(x.shape[2:], pads, size, strides))
    return x.with_tensor(result)


def _shares(sizes: Sequence[int], pads: Pads, kernel: Sequence[int], strides: Sequence[int]) -> np.ndarray:
    """How many cells each window has for one that is no padding, [1, H, W, 1]."""
    rows, columns = (
        np.array([np.pad(np.ones(size), pad)[i : i + k].sum() for i in range(0, size + sum(pad) - k + 1, s)])
        for size, pad, k, s in zip(sizes, pads, kernel, strides, strict=True)
    )
    shares = kernel[0] * kernel[1] / np.outer(rows, columns)
    return shares[None, :, :, None].astype(np.float32)


def _pooled(node: Node) -> tuple[Value, tuple[int, int], tuple[int, int]]:
    if len(node.shapes) > 1 or pair(node, "dilations") != (1, 1):
        raise Unsupported("a pool with holes, or one that tells positions")
    return as_maps(node.value(), node.part("order")), pair(node, "kernel_shape"), pair(node, "strides")


REDUCTIONS = {"Mean": ops.mean, "Max": ops.max, "Sum": ops.sum, "Min": ops.min}
GLOBAL = {"Mean": layers.GlobalAveragePooling2D, "Max": layers.GlobalMaxPooling2D}


@translates("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(node: Node) -> Value:
    kind = "Mean" if node.kind == "GlobalAveragePool" else "Max"
    return _reduced(node, node.value(), kind, set(range(2, node.value().rank)))


@translates(*(f"Reduce{name}" for name in REDUCTIONS))
def _reduce(node: Node) -> Value:
    x = node.value()
    axes = {axis % x.rank for axis in node.setting("axes", 1, list(range(x.rank)))}
    x = _reduced(node, x, node.kind.removeprefix("Reduce"), axes)
    return x if node.setting("keepdims", default=1) else reshaped(x, node.shape, node.part("shape"))


def _reduced(node: Node, x: Value, kind: str, axes: set[int]) -> Value:
    """One value in place of these axes, which stay with the size 1."""
    if x.axes[0] in axes:
        raise Unsupported("a reduction over the batch")
    if x.rank == 4 and axes == {2, 3} and kind in GLOBAL:
        x = as_maps(x, node.part("order"))
        return x.with_tensor(GLOBAL[kind](keepdims=True, name=node.name)(x.tensor))
    places = sorted(x.place(axis) for axis in axes)
    return x.with_tensor(REDUCTIONS[kind](x.tensor, axis=places, keepdims=True))
