"""Tensors of an ONNX graph as tensors of Keras.

ONNX keeps channels before height and width, Keras behind them. A ``Value`` knows in which order its axes lie, so a
transposition costs nothing until an operation needs another order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import layers

Tensor = Any
MAPS = (0, 2, 3, 1)
"""Axes of an ONNX tensor [N, C, H, W] in Keras' order."""
NO_BATCH = -1
"""Stands for the batch of a tensor that has none in ONNX: with one image, [1, rows, C] may become [rows, C]."""


class Unsupported(Exception):
    """What an operation asks for has no layer; the text says what that is."""


@dataclass(frozen=True)
class Value:
    """A tensor of the Keras network.

    Attributes:
        tensor: Its batch is open, where the ONNX tensor's is 1.
        axes: The axis ``axes[i]`` of the ONNX tensor is axis ``i`` here. The batch comes first here, and nearly always
            there; ``axes[0]`` is ``NO_BATCH`` where it has none.
    """

    tensor: Tensor
    axes: tuple[int, ...]

    @property
    def rank(self) -> int:
        """The number of axes of the ONNX tensor."""
        return len(self.axes) - (NO_BATCH in self.axes)

    @property
    def shape(self) -> list[int]:
        """The sizes in ONNX' order, the batch as 1."""
        sizes: list[int] = [1] * self.rank
        for axis, size in zip(self.axes[1:], self.tensor.shape[1:], strict=True):
            sizes[axis] = int(size)
        return sizes

    def place(self, axis: int) -> int:
        """Where an axis of the ONNX tensor lies here."""
        return self.axes.index(axis % self.rank)

    def with_tensor(self, tensor: Tensor) -> Value:
        """Another tensor whose axes lie alike."""
        return Value(tensor, self.axes)

    def with_batch(self) -> Value:
        """The same with an axis for the batch in front, if it has none."""
        return (
            self if NO_BATCH not in self.axes else Value(self.tensor, tuple(axis + 1 for axis in self.axes))
        )

    def without_batch(self) -> Value:
        """The same without the axis of its batch, which must be the first."""
        return Value(self.tensor, tuple(axis - 1 for axis in self.axes))


def transposed(value: Value, order: Sequence[int]) -> Value:
    """ONNX' ``Transpose``: the axes are renamed, and nothing is computed."""
    if NO_BATCH in value.axes:
        return transposed(value.with_batch(), [0, *(axis + 1 for axis in order)]).without_batch()
    return Value(value.tensor, tuple(order.index(axis) for axis in value.axes))


def arranged(value: Value, axes: Sequence[int], name: str) -> Value:
    """The same tensor with its axes in the order ``axes``."""
    axes = tuple(axes)
    if value.axes == axes:
        return value
    if NO_BATCH in axes:
        return arranged(value.with_batch(), [axis + 1 for axis in axes], name).without_batch()
    shape = value.shape
    wide = [[axis for axis in order if shape[axis] > 1] for order in (value.axes, axes)]
    if wide[0] == wide[1]:  # only axes of size 1 change their places
        return Value(layers.Reshape([shape[axis] for axis in axes[1:]], name=name)(value.tensor), axes)
    return Value(layers.Permute([value.place(axis) for axis in axes[1:]], name=name)(value.tensor), axes)


def standard(value: Value, name: str) -> Value:
    """The same tensor with its axes in ONNX' order, behind the batch."""
    batch = value.axes[0]
    return arranged(value, [batch, *(axis for axis in range(value.rank) if axis != batch)], name)


def as_maps(value: Value, name: str) -> Value:
    """The same tensor in Keras' order [N, H, W, C]."""
    if value.rank != len(MAPS) or value.axes[0] != 0:
        raise Unsupported(f"maps of {value.rank - 2} dimensions; of two it is known")
    return arranged(value, MAPS, name)


def reshaped(value: Value, shape: Sequence[int], name: str) -> Value:
    """ONNX' ``Reshape``. Where axes are only split or merged, no axis is moved for it."""
    value, new = value.with_batch(), list(shape)
    if new[0] != 1 and not value.axes[0]:
        return reshaped(value, [1, *new], name).without_batch()
    old = value.shape
    if value.axes[0]:
        raise Unsupported(f"a reshape to {new}, which takes the batch away")
    groups = _groups(old, new)
    order = [axis for axis in value.axes if old[axis] > 1]
    runs = {axis: merged for merged, _ in groups for axis in merged}
    wanted = list(dict.fromkeys(axis for first in order for axis in runs[first]))
    if wanted != order:  # what is merged must lie side by side
        ones = [axis for axis in range(1, value.rank) if axis not in wanted]
        return reshaped(arranged(value, (0, *ones, *wanted), f"{name}.order"), shape, name)
    by_first = {merged[0]: made for merged, made in groups}
    wide = [axis for first in order if first in by_first for axis in by_first[first]]
    axes = _with_ones(wide, new)
    sizes = [new[axis] for axis in axes[1:]]
    if sizes == list(value.tensor.shape[1:]):
        return Value(value.tensor, axes)
    return Value(layers.Reshape(sizes, name=name)(value.tensor), axes)


def without(value: Value, axis: int, name: str) -> Value:
    """The tensor without an axis of size 1."""
    axis %= value.rank
    if axis == value.axes[0] == 0:
        return value.without_batch()
    if axis == value.axes[0]:
        raise Unsupported("an image in place of a batch")
    place = value.place(axis)
    sizes = [size for i, size in enumerate(value.tensor.shape) if i not in (0, place)]
    axes = tuple(other - (other > axis) for other in value.axes if other != axis)
    return Value(layers.Reshape(sizes, name=name)(value.tensor), axes)


def _groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Runs of axes of equal size in all, those of size 1 left out: which axes become which."""
    if math.prod(old) != math.prod(new):
        raise Unsupported(f"a reshape of {list(old)} to {list(new)}")
    groups: list[tuple[list[int], list[int]]] = []
    sources = [axis for axis, size in enumerate(old) if size > 1]
    targets = [axis for axis, size in enumerate(new) if size > 1]
    while sources:
        merged, made = [sources.pop(0)], [targets.pop(0)]
        sizes = [old[merged[0]], new[made[0]]]
        while sizes[0] != sizes[1]:
            if sizes[0] < sizes[1]:
                merged.append(sources.pop(0))
                sizes[0] *= old[merged[-1]]
            else:
                made.append(targets.pop(0))
                sizes[1] *= new[made[-1]]
        groups.append((merged, made))
    return groups


def _with_ones(wide: list[int], shape: Sequence[int]) -> tuple[int, ...]:
    """An order of all axes that has those larger than 1 in the order ``wide``: Keras' for maps, or ONNX', if one is."""
    everything = range(len(shape))
    for order in ([MAPS] if len(shape) == len(MAPS) else []) + [tuple(everything)]:
        if [axis for axis in order if axis in wide] == wide:
            return tuple(order)
    return (0, *(axis for axis in everything if axis and axis not in wide), *wide)


def aligned(values: Sequence[Value], name: str) -> list[Value]:
    """Tensors of one rank with their axes in one order, as operations of several tensors need them.

    A tensor of fewer axes gets axes of size 1 in front, as ONNX' broadcasting does.
    """
    most = max(values, key=lambda value: value.rank)
    result = []
    for i, value in enumerate(values):
        missing = most.rank - value.rank
        if missing:
            value = reshaped(value, [1] * missing + value.shape, f"{name}.axes{i}")
        if value.axes[0] != most.axes[0]:
            raise Unsupported("batches in different places")
        result.append(arranged(value, most.axes, f"{name}.order{i}"))
    return result


def constant(array: np.ndarray, value: Value) -> np.ndarray:
    """A constant operand as it is broadcast over the tensor of ``value``: its axes in the same order, the batch 1."""
    if array.ndim > value.rank:
        raise Unsupported(f"a constant of shape {list(array.shape)} with a tensor of {value.rank} axes")
    value = value.with_batch()
    wide = array.reshape((1,) * (value.rank - array.ndim) + array.shape)
    if wide.shape[value.axes[0]] != 1:
        raise Unsupported(f"a constant of shape {list(array.shape)}, another one for each image")
    return np.transpose(wide, value.axes)
