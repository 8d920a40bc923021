"""Cross-layer equalization: channels of consecutive kernels at scales that suit one grid for all of them.

Between two linear layers with a ReLU in between, a channel can be divided by ``s > 0`` in the first kernel and
multiplied by it in the second: the network computes the same. With ``s = sqrt(r1 / r2)``, where ``r1`` and ``r2`` are the
largest weights of the channel in the two, both ranges become ``sqrt(r1 * r2)`` (Nagel et al., 2019,
https://arxiv.org/abs/1906.04721, section 4.1). The channels of the tensor in between come closer to each other, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from edgecls.graph import Graph, Op, trace
from edgecls.quantize import floats
from edgecls.quantize.folding import KERNELS, float64, fold_norms, output_channels
from edgecls.quantize.lower import Size, lower
from edgecls.quantize.quantizers import DEAD

ROUNDS = 100  # chains of depthwise blocks converge in some tens
CONVERGED = 1e-4  # of a factor
MARGIN = 2.5  # of the top of a ReLU, because other images than those measured have larger values

# What a positive factor of each channel can pass.
PASSED = (
    layers.ReLU,
    layers.LeakyReLU,
    layers.ZeroPadding2D,
    layers.Cropping2D,
    layers.UpSampling2D,
    layers.MaxPooling2D,
    layers.AveragePooling2D,
    layers.GlobalMaxPooling2D,
    layers.GlobalAveragePooling2D,
)


def equalize(
    model: keras.Model,
    images: Any = None,
    input_size: Size | None = None,
    keep_float: Sequence[str] = (),
) -> keras.Model:
    """A float network that computes the same, with equal ranges in consecutive kernels; ``quantize_model`` takes it.

    Batch normalizations are folded, so train before. A ReLU6 ends at 6 for all channels. It is passed only with
    ``images``: a channel that comes near 6 on them keeps its scale, and no other grows so far that they would cut it.
    Other images can be cut, so the network is the same for certain only without ``images``.

    Args:
        model: As ``quantize_model`` takes it. It is not changed.
        images: Pixels [batch, height, width, channels] as the network takes them; None: nothing is done across a ReLU6.
            All are in memory at once; some tens are enough.
        input_size: See ``quantize_model``.
        keep_float: See ``quantize_model``; such layers are left as they are.

    Returns:
        A flat functional model; layers that are not split keep their names.

    Raises:
        UsageError: See ``quantize_model``.

    Example:
        >>> image = keras.Input((8, 8, 3))
        >>> x = layers.Conv2D(4, 3, activation="relu", name="first")(image)
        >>> model = equalize(keras.Model(image, layers.Conv2D(2, 1, name="second")(x)))
        >>> first, second = (np.abs(model.get_layer(name).kernel) for name in ("first", "second"))
        >>> np.allclose(first.max((0, 1, 2)), second.max((0, 1, 3)), rtol=1e-3)
        True
    """
    network, kept = lower(model, input_size, keep_float)
    kept = floats.kept_names(model, trace(network), kept, keep_float)
    network = fold_norms(network, kept)
    pairs = [pair for pair in _pairs(trace(network), kept) if pair.top is None or images is not None]
    tops = {pair.top.name: pair.top for pair in pairs if pair.top}
    highest = _highest(network, tops, images) if tops else {}
    for pair in pairs:
        if pair.top:
            pair.limit(highest[pair.top.name] / pair.top.max_value)
    for _ in range(ROUNDS):
        if max((pair.balance() for pair in pairs), default=0.0) < CONVERGED:
            break
    for pair in pairs:
        pair.write()
    return network


@dataclass(eq=False)
class Kernel:
    """A kernel and bias in float64, until all factors are known."""

    layer: Any
    kernel: np.ndarray
    bias: np.ndarray | None

    @classmethod
    def of(cls, layer: Any) -> Kernel:
        return cls(layer, float64(layer.kernel), float64(layer.bias) if layer.use_bias else None)

    def output_ranges(self) -> np.ndarray:
        """The largest weight of each output channel."""
        depthwise = isinstance(self.layer, layers.DepthwiseConv2D)
        axes = tuple(range(self.kernel.ndim - (2 if depthwise else 1)))
        return np.abs(self.kernel).max(axes).reshape(-1)

    def input_ranges(self) -> np.ndarray:
        """The largest weight that each input channel meets."""
        largest = np.abs(self.kernel).reshape(-1, *self.kernel.shape[-2:]).max(0)  # [inputs a group, outputs]
        seen, outputs = largest.shape
        return largest.reshape(seen, self._groups, outputs // self._groups).max(2).T.reshape(-1)

    def divide_outputs(self, factors: np.ndarray) -> None:
        self.kernel = self.kernel / output_channels(self.layer, factors)
        self.bias = None if self.bias is None else self.bias / factors

    def multiply_inputs(self, factors: np.ndarray) -> None:
        by_group = factors.reshape(self._groups, -1).T  # [inputs a group, groups]
        self.kernel = self.kernel * np.repeat(by_group, self.kernel.shape[-1] // self._groups, axis=1)

    @property
    def _groups(self) -> int:
        """Groups of a kernel [..., inputs a group, outputs]; a depthwise one is [..., inputs, outputs an input]."""
        return getattr(self.layer, "groups", 1) if isinstance(self.layer, layers.Conv2D) else 1


@dataclass(eq=False)
class Pair:
    """Two kernels whose channels can trade a factor.

    Args:
        first: The kernel that makes the channels.
        second: The one that reads them.
        top: A ReLU in between that ends somewhere.
    """

    first: Kernel
    second: Kernel
    top: Any = None

    def __post_init__(self) -> None:
        self.total = np.ones(self.first.output_ranges().shape)  # what the channels are divided by
        self.least, self.free = np.zeros_like(self.total), np.ones_like(self.total, bool)

    def limit(self, reached: np.ndarray) -> None:
        """Keep each channel below the top; ``reached`` is the share of it that its values come to."""
        self.least, self.free = reached * MARGIN, reached * MARGIN < 1.0

    def balance(self) -> float:
        """Make the ranges of both kernels equal; the largest change, as the logarithm of a factor."""
        one, two = self.first.output_ranges(), self.second.input_ranges()
        alive = self.free & (one > DEAD * one.max()) & (two > DEAD * two.max())
        factors = np.sqrt(np.divide(one, two, out=np.ones_like(one), where=alive))
        factors = np.where(alive, np.maximum(self.total * factors, self.least) / self.total, 1.0)
        self.total = self.total * factors
        self.first.divide_outputs(factors)
        self.second.multiply_inputs(factors)
        return float(np.abs(np.log(factors)).max())

    def write(self) -> None:
        """Give the layers their new weights."""
        for part in (self.first, self.second):
            part.layer.kernel.assign(part.kernel)
            if part.bias is not None:
                part.layer.bias.assign(part.bias)


def _pairs(graph: Graph, kept: Collection[str]) -> Iterator[Pair]:
    kernels: dict[str, Kernel] = {}
    for op in graph.ops:
        found = _second(graph, op) if _is_kernel(graph, op, kept) else None
        if found and _is_kernel(graph, found[0], kept):
            first, second = (
                kernels.setdefault(layer.name, Kernel.of(layer)) for layer in (op.layer, found[0].layer)
            )
            yield Pair(first, second, found[1])


def _second(graph: Graph, op: Op) -> tuple[Op, Any] | None:
    """The operation that alone reads what ``op`` makes, through ``PASSED`` layers, and the ReLU with a top among them."""
    top = None
    while True:
        readers = graph.consumers(op.output)
        if len(readers) != 1 or graph.users[op.output] != 1:
            return None
        (op,) = readers
        if not _passes(op.layer):
            return op, top
        if getattr(op.layer, "max_value", None) is not None:
            if top is not None:
                return None
            top = op.layer


def _passes(layer: Any) -> bool:
    if isinstance(layer, layers.Flatten):
        return all(size == 1 for size in layer.input.shape[1:-1])
    last = getattr(layer, "data_format", "channels_last") == "channels_last"
    return type(layer) in PASSED and last and not getattr(layer, "threshold", 0)


def _is_kernel(graph: Graph, op: Op, kept: Collection[str]) -> bool:
    layer = op.layer
    plain = isinstance(layer, KERNELS) and not isinstance(layer, layers.Conv2DTranspose)
    return plain and layer.name not in kept and graph.calls[layer.name] == 1


def _highest(network: keras.Model, tops: dict[str, Any], images: Any) -> dict[str, np.ndarray]:
    """The largest value of each channel before each ReLU of ``tops``."""
    inputs = keras.Model(network.input, {name: layer.input for name, layer in tops.items()})
    values = inputs(np.asarray(images, np.float32), training=False)
    return {name: np.asarray(x).reshape(-1, x.shape[-1]).max(0).clip(0) for name, x in values.items()}
