"""Structural re-parameterization: a sum of branches in training becomes one convolution for deployment.

A *branch* is a convolution with or without batch normalization, or a normalization alone. At inference each is a
convolution with a bias, and so is the sum of several that read one map: its kernel is the sum of theirs, laid into one
of the largest size (Ding et al., 2019, https://arxiv.org/abs/1908.03930; 2021, https://arxiv.org/abs/2101.03697).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from edgecls.errors import UsageError
from edgecls.graph import Graph, Op, Ref, rebuild, trace

NARROW = {"acver": 1, "achor": 0}  # kernels that are one cell wide on one axis, and which axis that is


def fuse(model: keras.Model) -> keras.Model:
    """Make the plain network for deployment from a network that was trained with branches.

    Both compute the same at inference. Every ``Add`` of branches that read one map becomes one convolution with a bias,
    if the largest kernel among them covers the others. These are the blocks of RepVGG, ACNet and PP-LCNetV2, and those
    that ``asymmetric`` makes. The convolution has the name of the
    layer with the largest kernel, or of a layer behind the sum that has an attribute ``names_fused_sum = True``: the originals keep
    the fused kernel under that layer's name. A sum is left as it is if something else takes what is inside it. Sums
    are computed in float64.

    Args:
        model: A functional model. It is not changed.

    Returns:
        A new network with its own weights, or ``model`` itself if there is nothing to fuse.

    Example:
        >>> trained = edgecls.build_model("RepVGG_A0", input_size=32)
        >>> deployed = fuse(trained)
        >>> len(trained.layers), len(deployed.layers)  # doctest: +SKIP
        (201, 51)

    Raises:
        edgecls.errors.UsageError: The model is not functional.
    """
    graph = trace(model)
    sums: dict[str, Sum] = {}
    inside: set[str] = set()  # layers that the convolutions replace
    for op in reversed(graph.ops):  # so that a sum of sums is found before its parts
        if op.layer.name not in inside and (found := _sum(graph, op)):
            sums[op.layer.name] = found
            inside |= found.inside
    if not sums:
        return model

    def change(layer: Any, inputs: Any) -> Any:
        # Layers inside pass on their input, so that the sum's first input is the map that its branches read.
        first = inputs[0] if isinstance(inputs, list) else inputs
        if layer.name in sums:
            return sums[layer.name].fused(first)
        return first if layer.name in inside else None

    return rebuild(model, change)


def asymmetric(model: keras.Model, loaded: bool = False) -> keras.Model:
    """Copy a network and give it asymmetric convolutions (ACNet) for training; ``fuse`` makes it plain again.

    Every convolution that is larger than 1x1 and has a batch normalization behind it becomes a sum of three, each
    normalized: itself, a vertical one and a horizontal one through its center. This includes depthwise convolutions:
    mobile networks have few others. The names of the square one stay; the other two end in ``_acver`` and ``_achor``.

    Args:
        model: A functional model. It is not changed.
        loaded: Whether the network has weights worth keeping. Then the new normalizations begin with a scale of 0, so
            that the network computes what it did. Else all three begin with 1 / sqrt(3), so that their sum has the
            variance that one had.

    Example:
        >>> network = asymmetric(edgecls.build_model("MobileNetV1_x0_25", classes=5))
        >>> plain = fuse(network)  # after training

    Raises:
        edgecls.errors.UsageError: The model has no such convolution, or is not functional.
    """
    graph = trace(model)
    squares = {op.layer.name: found for op in graph.ops if (found := _square(graph, op))}
    if not squares:
        raise UsageError(
            "no convolution larger than 1x1 has a batch normalization after it",
            where=model.name,
            fix="leave asymmetric convolutions (acnet) out",
        )
    inside = {layer.name for square in squares.values() for layer in (*square.frames, square.conv)}
    scale = 0.0 if loaded else 3**-0.5
    waiting: dict[str, Any] = {}  # layers of the copy whose normalization comes later

    def change(layer: Any, inputs: Any) -> Any:
        if layer.name in inside:
            waiting[layer.name] = layer
            return inputs
        square = squares.get(layer.name)
        if square is None:
            return None
        x = inputs
        for part in (*square.frames, square.conv):
            x = waiting[part.name](x)
        terms = [layer(x), *(square.narrow(inputs, part, scale) for part in NARROW)]
        return layers.Add(name=f"{square.conv.name}_acadd")(terms)

    copy = rebuild(model, change)
    for name in () if loaded else squares:
        norm = copy.get_layer(name)
        if norm.scale:
            norm.gamma.assign(norm.gamma * scale)
    return copy


@dataclass(frozen=True)
class Branch:
    """``norm(conv(crop(pad(source))))``, of which it has the convolution or the normalization, or both.

    Args:
        source: The map that it reads.
        norm: The batch normalization.
        conv: The convolution, depthwise or not.
        frames: The layers before the convolution that pad and crop.
    """

    source: Ref
    norm: Any = None
    conv: Any = None
    frames: tuple[Any, ...] = ()

    @property
    def out(self) -> Any:
        """The layer that it ends with."""
        return self.norm or self.conv

    def framed(self, axis: int, end: int) -> int:
        """The number of cells that padding adds to an axis at its start (0) or end (1); negative for cropping."""
        return sum(
            frame.padding[axis][end]
            if isinstance(frame, layers.ZeroPadding2D)
            else -frame.cropping[axis][end]
            for frame in self.frames
        )

    def reach(self, axis: int) -> int | None:
        """The number of cells between the kernel's first position and the map's first cell; None if it is unknown.

        Example: a 3x3 kernel with one row of padding begins 1 cell before the map.
        """
        framed, conv = [self.framed(axis, end) for end in (0, 1)], self.conv
        if not conv or conv.padding == "valid":
            return framed[0]
        size, stride, extent = conv.input.shape[1 + axis], conv.strides[axis], self.extent(axis)
        if (size is None and stride > 1) or (
            extent > 1 and min(framed) < 0
        ):  # zeros in place of what was cropped
            return None
        total = extent - 1 if stride == 1 else max((-(-size // stride) - 1) * stride + extent - size, 0)
        return framed[0] + total // 2

    def extent(self, axis: int) -> int:
        """The number of cells that the kernel covers on an axis, from its first to its last, with dilation."""
        return (self.conv.kernel_size[axis] - 1) * self.conv.dilation_rate[axis] + 1

    def place(self, widest: Branch) -> tuple[int, int] | None:
        """Row and column of its kernel inside the kernel of the ``widest`` branch; None if it is not inside."""
        corner = []
        for axis in (0, 1):
            dilation, (size, own_dilation) = widest.conv.dilation_rate[axis], (1, 1)
            if self.conv:
                size, own_dilation = self.conv.kernel_size[axis], self.conv.dilation_rate[axis]
            widest_reach, own_reach = widest.reach(axis), self.reach(axis)
            if widest_reach is None or own_reach is None or (size > 1 and own_dilation != dilation):
                return None
            first, between_cells = divmod(widest_reach - own_reach, dilation)
            if between_cells or first < 0 or first + size > widest.conv.kernel_size[axis]:
                return None
            corner.append(first)
        return corner[0], corner[1]

    def fits(self, widest: Branch) -> bool:
        """Whether the two can be one convolution."""
        if self.conv:
            same = [
                (_depthwise(conv), getattr(conv, "groups", 0), tuple(conv.strides), conv.kernel.shape[2:])
                for conv in (self.conv, widest.conv)
            ]
            alike = same[0] == same[1]
        else:
            alike = (
                tuple(widest.conv.strides) == (1, 1)
                and widest.conv.input.shape[-1] == self.out.output.shape[-1]
            )
        return (
            alike
            and self.source == widest.source
            and self.out.output.shape == widest.out.output.shape
            and self.place(widest) is not None
        )

    def plain(self, widest: Branch) -> tuple[np.ndarray, np.ndarray]:
        """The branch at inference as one convolution: a kernel in the shape of the ``widest`` branch's, and a bias."""
        kernel, bias = np.zeros(widest.conv.kernel.shape), np.zeros(self.out.output.shape[-1])
        depthwise = _depthwise(widest.conv)
        row, column = self.place(widest) or (0, 0)
        if self.conv:
            height, width = self.conv.kernel_size
            kernel[row : row + height, column : column + width] = _float64(self.conv.kernel)
            bias = _float64(self.conv.bias) if self.conv.use_bias else bias
        else:
            seen, channels = kernel.shape[2:]
            kernel[row, column] = 1.0 if depthwise else np.tile(np.eye(seen), channels // seen)
        if self.norm:
            gain = 1 / np.sqrt(_float64(self.norm.moving_variance) + self.norm.epsilon)
            gain = gain * _float64(self.norm.gamma) if self.norm.scale else gain
            bias = (bias - _float64(self.norm.moving_mean)) * gain
            bias = bias + _float64(self.norm.beta) if self.norm.center else bias
            kernel = kernel * gain.reshape(kernel.shape[2:] if depthwise else -1)
        return kernel, bias

    def narrow(self, x: Any, part: str, scale: float) -> Any:
        """Build the vertical or horizontal branch ``part`` on ``x``; its normalization begins with ``scale``."""
        conv, name, cells = self.conv, f"{self.conv.name}_{part}", []
        kernel = list(conv.kernel_size)
        for axis in (0, 1):
            ends = [self.framed(axis, 0), self.framed(axis, 1)]
            if axis == NARROW[part]:
                middle = self.extent(axis) // 2
                ends = [(self.reach(axis) or 0) - middle, ends[1] - middle if conv.padding == "valid" else 0]
                kernel[axis] = 1
            cells.append(ends)
        if np.max(cells) > 0:
            x = layers.ZeroPadding2D(np.maximum(cells, 0).tolist(), name=f"{name}.pad")(x)
        if np.min(cells) < 0:
            x = layers.Cropping2D(np.maximum(np.negative(cells), 0).tolist(), name=f"{name}.crop")(x)
        x = _clone(conv, name=name, kernel_size=kernel)(x)
        start = keras.initializers.Constant(scale)
        return _clone(self.norm, name=f"{self.norm.name}_{part}", scale=True, gamma_initializer=start)(x)


@dataclass(frozen=True)
class Sum:
    """An ``Add`` of branches that can be one convolution.

    Args:
        branches: What it adds up.
        widest: The branch with the largest kernel: the convolution has its size, strides and padding.
        inside: Names of the layers that the convolution replaces.
        name: Name of the convolution.
    """

    branches: tuple[Branch, ...]
    widest: Branch
    inside: frozenset[str]
    name: str

    def fused(self, x: Any) -> Any:
        """The convolution on ``x``."""
        for frame in self.widest.frames:
            x = _clone(frame)(x)
        conv = _clone(self.widest.conv, name=self.name, use_bias=True)
        y = conv(x)
        kernels, biases = zip(*(branch.plain(self.widest) for branch in self.branches), strict=True)
        conv.kernel.assign(sum(kernels))
        conv.bias.assign(sum(biases))
        return y


def _sum(graph: Graph, op: Op) -> Sum | None:
    """The sum that ends in ``op``, if it can be one convolution."""
    if not isinstance(op.layer, layers.Add) or graph.calls[op.layer.name] > 1:
        return None
    branches = list(_branches(graph, op))
    kernels = [branch for branch in branches if branch and branch.conv]
    if not kernels:
        return None
    widest = max(kernels, key=lambda branch: np.prod(branch.conv.kernel_size))
    if not all(branch and branch.fits(widest) for branch in branches):
        return None
    inside, name = set(_between(graph, op, widest.source)), widest.conv.name
    for follower in graph.consumers(op.output):
        if getattr(follower.layer, "names_fused_sum", False):
            inside, name = inside | {follower.layer.name}, follower.layer.name
    return Sum(tuple(b for b in branches if b), widest, frozenset(inside), name)


def _branches(graph: Graph, op: Op) -> Iterator[Branch | None]:
    """The branches that ``op`` adds up, also through sums before it; None for an input that is not a branch."""
    for ref in op.inputs:
        maker = graph.makers.get(ref)
        if maker and isinstance(maker.layer, layers.Add) and graph.users[ref] == graph.calls[ref[0]] == 1:
            yield from _branches(graph, maker)
        else:
            yield _branch(graph, ref) if graph.users[ref] == 1 else None


def _branch(graph: Graph, ref: Ref) -> Branch | None:
    """The branch that ends in ``ref``. It ends, going back, where something else takes the tensor."""

    def take(*kinds: type) -> Any:
        nonlocal ref
        op = graph.makers.get(ref)
        if op is None or not isinstance(op.layer, kinds) or graph.calls[ref[0]] > 1 or not _usual(op.layer):
            return None
        if ref != end and graph.users[ref] > 1:
            return None
        ref = op.inputs[0]
        return op.layer

    end = ref
    norm, conv = take(layers.BatchNormalization), take(layers.Conv2D, layers.DepthwiseConv2D)
    crop, pad = (take(layers.Cropping2D), take(layers.ZeroPadding2D)) if conv else (None, None)
    return Branch(ref, norm, conv, tuple(filter(None, (pad, crop)))) if norm or conv else None


def _square(graph: Graph, op: Op) -> Branch | None:
    """The branch that ends in the normalization ``op``, if asymmetric branches can be put beside it."""
    found = _branch(graph, op.output) if isinstance(op.layer, layers.BatchNormalization) else None
    if not found or not found.norm or not found.conv:
        return None
    odd = all(size > 1 and size % 2 for size in found.conv.kernel_size)
    placed = None not in (found.reach(0), found.reach(1)) and (
        found.conv.padding == "valid" or not found.frames
    )
    return found if odd and placed else None


def _between(graph: Graph, op: Op, source: Ref) -> Iterator[str]:
    """Names of the layers between ``source`` and ``op``."""
    for ref in op.inputs:
        if ref != source:
            yield ref[0]
            yield from _between(graph, graph.makers[ref], source)


def _usual(layer: Any) -> bool:
    """Whether the layer is a linear function of an NHWC map, and is Keras' class or the zoo's, not another subclass."""
    if not type(layer).__module__.startswith(("keras.", "edgecls.zoo.")):
        return False
    if isinstance(layer, layers.BatchNormalization):
        return len(layer.output.shape) == 4 and layer.axis in (-1, 3)
    linear = getattr(layer, "activation", keras.activations.linear) is keras.activations.linear
    return linear and layer.data_format == "channels_last"


def _depthwise(conv: Any) -> bool:
    return isinstance(conv, layers.DepthwiseConv2D)


def _clone(layer: Any, **changes: Any) -> Any:
    return type(layer).from_config({**layer.get_config(), **changes})


def _float64(variable: Any) -> np.ndarray:
    return np.asarray(variable.numpy(), np.float64)
