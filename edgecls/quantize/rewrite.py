"""Rewrite a float network into one that trains with the arithmetic of its int8 file.

It is one walk over the graph. A rule in ``RULES`` says what a layer becomes. Rules return a ``Value``, which is put on an
int8 grid only when a consumer needs it: convolution, batch normalization and ReLU are one int8 operation, so they get one
grid, after the last of them. A value also knows its scale relative to the float network (``layers`` says why).

A new kind of layer takes one function with ``@rule(TheLayer)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import layers as kl

from edgecls.errors import UsageError
from edgecls.graph import Graph, Op, Ref, trace
from edgecls.quantize import exact
from edgecls.quantize import layers as ql
from edgecls.quantize.control import measure_kernels
from edgecls.zoo import layers as zoo_layers
from edgecls.zoo import vit

Tensor = Any


@dataclass
class Value:
    """A tensor of the new graph and what it means.

    Args:
        tensor: The Keras tensor, ``scale`` times that of the float network, plus ``shift``.
        name: Of the layer that made it; its quantizer is named after it.
        users: How many operations take it.
        linear: It comes from an op into which TFLite fuses a following ReLU.
        maker: The layer that made it, if that layer has an ``output_scale`` to set.
        grid: The quantizer on whose grid it lies; None if it is on no grid yet.
    """

    tensor: Tensor
    name: str
    users: int
    scale: float = 1.0
    shift: float = 0.0
    linear: bool = False
    maker: keras.Layer | None = None
    grid: ql.Quantize | None = None

    @property
    def scalable(self) -> bool:
        """Whether another scale costs no operation."""
        return self.maker is not None and self.users == 1 and self.grid is None and not self.shift


# XNNPACK adds int8 tensors only if no term's step is 2**10 times finer than the sum's. A term that is nearly zero
# everywhere would have such a step and split the graph.
TERM_WIDTH = 0.02
HEADROOM = 1.5  # of the logits
ZERO_TOLERANCE = 0.02  # pixels: recipes round 127 / 255 to three digits

Rule = Callable[["Rewriter", Op, list[Value]], Value]
RULES: dict[type, Rule] = {}


def rule(*classes: type) -> Callable[[Rule], Rule]:
    """Register the function below as what becomes of layers of these classes (and of their subclasses)."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(classes, function))
        return function

    return register


def quantize_model(model: keras.Model) -> keras.Model:
    """The quantization-aware twin of a float network, with its weights.

    Layers keep their names, kernels their scale, so optimizers and learning rates carry over. Call ``calibrate`` on
    the result before anything else: the ranges of its activations are not set.

    Args:
        model: A functional Keras 3 network from pixels [batch, size, size, 3] to logits; a ``Normalize`` first layer
            goes into the file.

    Returns:
        A functional model of serialisable layers with the same inputs and outputs.

    Raises:
        UsageError: A layer has no rule; the text names it.

    Example:
        >>> model = edgecls.build_model("MobileNetV3_small_x0_35", classes=3, input_size=32)
        >>> network = quantize_model(model)
        >>> network.get_layer("conv.conv").__class__.__name__
        'QuantizedConv2D'
    """
    graph = trace(model)
    network = Rewriter(graph).run(model.name)
    for layer in {op.layer.name: op.layer for op in graph.ops}.values():
        _copy_weights(layer, network)
    measure_kernels(network)
    return network


class Rewriter:
    """The walk over the graph: the new value of each old tensor, and what rules call to make new layers."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.values: dict[Ref, Value] = {}
        self.sources: list[Tensor] = []

    def run(self, name: str) -> keras.Model:
        """Rewrite every operation and close the graph."""
        for op in self.graph.ops:
            inputs = [self.values[ref] for ref in op.inputs]
            self.values[op.output] = self._rule(op.layer)(self, op, inputs)
        ends = [self.plain(self.values[ref]) for ref in self.graph.outputs]
        outputs = [self.on_grid(value) for value in ends]
        for value in ends:
            value.grid.quantizer.headroom = HEADROOM  # type: ignore[union-attr]
        one = len(self.sources) == len(outputs) == 1
        return keras.Model(*((self.sources[0], outputs[0]) if one else (self.sources, outputs)), name=name)

    def _rule(self, layer: keras.Layer) -> Rule:
        for cls in type(layer).__mro__:
            if cls in RULES:
                return RULES[cls]
        kind = "layers" if isinstance(layer, keras.Layer) else "bare operations"
        raise UsageError(
            f"no quantization rule for {kind} of class {type(layer).__name__}",
            where=layer.name,
            fix="register one with edgecls.quantize.rewrite.rule",
        )

    def result(self, op: Op, tensor: Tensor, **meaning: Any) -> Value:
        """The value that ``op`` makes."""
        return Value(tensor, op.layer.name, self.users(op), **meaning)

    def users(self, op: Op) -> int:
        return len(self.graph.consumers(op.output)) + self.graph.outputs.count(op.output)

    def only_user(self, op: Op) -> keras.Layer | None:
        """The layer that alone takes the output of ``op``, if one does."""
        consumers = self.graph.consumers(op.output)
        return consumers[0].layer if self.users(op) == len(consumers) == 1 else None

    def on_grid(
        self,
        value: Value,
        floor: float | None = None,
        fixed: tuple[float, float] | None = None,
        width: float = 0.0,
    ) -> Tensor:
        """The tensor of ``value`` on its int8 grid, which is made on first need and is at least ``width`` wide."""
        if value.grid is None:
            value.grid = ql.Quantize(fixed, floor, name=f"{value.name}.quant")
            value.tensor = value.grid(value.tensor)
        value.grid.quantizer.width = max(value.grid.quantizer.width, width)
        return value.tensor

    def fused(self, value: Value) -> Tensor:
        """The tensor for an activation that TFLite fuses into the op before, if nothing else looks at that."""
        return value.tensor if value.linear and value.users == 1 else self.on_grid(value)

    def rescaled(self, value: Value, scale: float) -> Value:
        """``value`` at another scale and without shift.

        It costs an operation, unless the layer that made the value can take the factor.
        """
        factor = scale / value.scale
        if factor == 1.0 and not value.shift:
            return value
        if value.scalable:
            value.maker.output_scale *= factor  # type: ignore[union-attr]
            return replace(value, scale=scale)
        return self.affine(value, factor, -value.shift * factor, f"{value.name}.rescale", scale)

    def plain(self, value: Value) -> Value:
        """``value`` at the scale of the float network, for functions that are not homogeneous."""
        return self.rescaled(value, 1.0)

    def affine(
        self, value: Value, factor: float, offset: float, name: str, scale: float, shift: float = 0.0
    ) -> Value:
        """``value * factor + offset`` as an operation of its own; the result has ``scale`` and ``shift``."""
        tensor = self.on_grid(value)
        channels = tensor.shape[-1]
        tensor = ql.ConstantConv2D([factor] * channels, [offset] * channels, name=name)(tensor)
        return Value(tensor, name, 1, scale, shift, linear=True)


def _clone(layer: keras.Layer, cls: Any = None, **changes: Any) -> keras.Layer:
    return (cls or type(layer)).from_config({**layer.get_config(), **changes})


def _copy_weights(layer: keras.Layer, network: keras.Model) -> None:
    """Give the twin of ``layer`` in ``network`` its variables, by name."""
    if not layer.variables:
        return
    twins = {v.name: v for v in network.get_layer(layer.name).variables}
    for variable in layer.variables:
        twins[variable.name].assign(variable.value)


@rule(kl.InputLayer)
def _input(rewriter: Rewriter, op: Op, _: list[Value]) -> Value:
    tensor = keras.Input(batch_shape=op.layer.batch_shape, dtype=op.layer.dtype, name=op.layer.name)
    rewriter.sources.append(tensor)
    return rewriter.result(op, tensor)


@rule(zoo_layers.Normalize)
def _normalize(rewriter: Rewriter, op: Op, inputs: list[Value]) -> Value:
    """Pixels are integers: a normalization with one mean and one scale is just their grid's zero point and step."""
    mean, std = np.array(op.layer.mean), np.array(op.layer.std)
    zero = mean[0] * 255
    low, high = -mean / std, (1 - mean) / std
    if (
        np.ptp(mean) < 1e-9
        and np.ptp(std) < 1e-9
        and abs(zero - round(zero)) < ZERO_TOLERANCE
        and 0 <= zero <= 255
    ):
        value = rewriter.result(op, _clone(op.layer)(inputs[0].tensor))
        rewriter.on_grid(value, fixed=(low[0], high[0]))
        return value
    pixels = rewriter.on_grid(inputs[0], fixed=(0.0, 255.0))
    layer = ql.ConstantConv2D(list(1 / (255 * std)), list(low), name=op.layer.name)
    value = rewriter.result(op, layer(pixels))
    rewriter.on_grid(value, fixed=(min(low.min(), 0.0), max(high.max(), 0.0)))
    return value


@rule(kl.Conv2D)
def _conv(rewriter: Rewriter, op: Op, inputs: list[Value]) -> Value:
    return _linear(rewriter, op, inputs[0], ql.QuantizedConv2D)


@rule(kl.DepthwiseConv2D)
def _depthwise(rewriter: Rewriter, op: Op, inputs: list[Value]) -> Value:
    return _linear(rewriter, op, inputs[0], ql.QuantizedDepthwiseConv2D)


@rule(kl.Dense)
def _dense(rewriter: Rewriter, op: Op, inputs: list[Value]) -> Value:
    if len(inputs[0].tensor.shape) != 2:
        raise UsageError("Dense on a tensor that is not flat", where=op.layer.name, fix="use a 1x1 Conv2D")
    return _linear(rewriter, op, inputs[0], ql.QuantizedDense)


def _linear(rewriter: Rewriter, op: Op, value: Value, cls: type) -> Value:
    """Undo the scale of the input in the kernel; for a hard-sigmoid that follows, fold its slope and offset too."""
    if op.layer.activation is not keras.activations.linear:
        raise UsageError(
            "an activation inside a layer", where=op.layer.name, fix="make it a layer of its own"
        )
    value = value if not value.shift else rewriter.plain(value)
    scale, shift = 1.0, 0.0
    follower = rewriter.only_user(op)
    if isinstance(follower, zoo_layers.HardSigmoid):
        scale, shift = 6.0 * follower.slope, 6.0 * follower.offset
    layer = _clone(op.layer, cls, input_scale=value.scale, output_scale=scale, output_shift=shift)
    tensor = layer(rewriter.on_grid(value))
    return rewriter.result(op, tensor, scale=scale, shift=shift, linear=True, maker=layer)


@rule(kl.BatchNormalization)
def _batch_norm(rewriter: Rewriter, op: Op, inputs: list[Value]) -> Value:
    """The converter folds it into the convolution before it. If there is none, an identity convolution is added."""
    value = rewriter.plain(inputs[0])
    if not (isinstance(value.maker, ql.QuantizedKernel) and value.users == 1 and value.grid is None):
        value = rewriter.affine(value, 1.0, 0.0, f"{op.layer.name}.identity", 1.0)
    layer = _clone(op.layer, ql.FreezableBatchNormalization)
    return rewriter.result(op, layer(value.tensor), linear=True, maker=layer)


@rule(kl.ReLU)
def _relu(rewriter: Rewriter, op: Op, inputs: list[Value]) -> Value:
    if op.layer.negative_slope or op.layer.threshold:
        raise UsageError("a leaky or thresholded ReLU", where=op.layer.name, fix="use a plain one")
    value = inputs[0] if op.layer.max_value is None and not inputs[0].shift else rewriter.plain(inputs[0])
    return rewriter.result(op, _clone(op.layer)(rewriter.fused(value)), scale=value.scale)


@rule(zoo_layers.HardSwish)
def _hard_swish(rewriter: Rewriter, op: Op, inputs: list[Value]) -> Value:
    """Below -3 it is zero, so the grid of its input ends there: finer steps for what matters."""
    value = rewriter.plain(inputs[0])
    tensor = rewriter.on_grid(value, floor=-3.0 if value.users == 1 else None, width=TERM_WIDTH)
    return rewriter.result(op, ql.ScaledHardSwish(name=op.layer.name)(tensor), scale=6.0, linear=True)


@rule(zoo_layers.HardSigmoid)
def _hard_sigmoid(rewriter: Rewriter, op: Op, inputs: list[Value]) -> Value:
    """``relu6(6 * slope * x + 6 * offset)``, six times the gate; the linear part is in the layer before."""
    value, scale, shift = inputs[0], 6.0 * op.layer.slope, 6.0 * op.layer.offset
    if (value.scale, value.shift) != (scale, shift):
        value = rewriter.plain(value)
        value = rewriter.affine(value, scale, shift, f"{op.layer.name}.slope", scale, shift)
    tensor = kl.ReLU(max_value=6.0, name=op.layer.name)(rewriter.fused(value))
    return rewriter.result(op, tensor, scale=6.0)


@rule(kl.Multiply)
def _multiply(rewriter: Rewriter, op: Op, inputs: list[Value]) -> Value:
    factors = [value if not value.shift else rewriter.plain(value) for value in inputs]
    tensor = _clone(op.layer, exact.QuantizedMultiply)([rewriter.on_grid(value) for value in factors])
    return rewriter.result(op, tensor, scale=float(np.prod([value.scale for value in factors])), linear=True)


@rule(kl.Add)
def _add(rewriter: Rewriter, op: Op, inputs: list[Value]) -> Value:
    """Both terms get one scale: that of a term that cannot be rescaled without an operation."""
    fixed_scales = [value.scale for value in inputs if not value.scalable]
    scale = max(fixed_scales) if fixed_scales else inputs[0].scale
    terms = [rewriter.on_grid(rewriter.rescaled(value, scale), width=TERM_WIDTH * scale) for value in inputs]
    return rewriter.result(op, _clone(op.layer, exact.QuantizedAdd)(terms), scale=scale, linear=True)


@rule(kl.GlobalAveragePooling2D)
def _mean(rewriter: Rewriter, op: Op, inputs: list[Value]) -> Value:
    tensor = _clone(op.layer, exact.QuantizedMean)(rewriter.on_grid(inputs[0]))
    return rewriter.result(op, tensor, scale=inputs[0].scale, shift=inputs[0].shift)


@rule(kl.AveragePooling2D)
def _average(rewriter: Rewriter, op: Op, inputs: list[Value]) -> Value:
    """A convolution where windows tile the map; else the pool itself, which runs outside the delegate."""
    layer, value = op.layer, inputs[0]
    _, height, width, channels = value.tensor.shape
    tiles = height and width and height % layer.pool_size[0] == 0 and width % layer.pool_size[1] == 0
    if not tiles or layer.strides != layer.pool_size or value.shift:
        return _same_grid(rewriter, op, inputs)
    pool = ql.ConstantConv2D([1.0] * channels, [0.0] * channels, layer.pool_size, name=layer.name)
    return rewriter.result(op, pool(rewriter.on_grid(value)), scale=value.scale, linear=True)


@rule(kl.MaxPooling2D, kl.ZeroPadding2D, kl.Flatten, kl.Reshape, kl.Dropout)
def _same_grid(rewriter: Rewriter, op: Op, inputs: list[Value]) -> Value:
    """Operations whose int8 output has the grid of the input. Averages are rounded to it.

    The output of a pool with several consumers is put on the grid once more. Otherwise the converter leaves one
    consumer in float.
    """
    value = inputs[0] if not inputs[0].shift else rewriter.plain(inputs[0])
    average = isinstance(op.layer, kl.AveragePooling2D)
    tensor = _clone(op.layer, exact.QuantizedAverage if average else None)(rewriter.on_grid(value))
    assert value.grid is not None
    if average or rewriter.users(op) > 1:
        tensor = value.grid(tensor, follow=False)
    return rewriter.result(op, tensor, scale=value.scale, grid=value.grid)


@rule(kl.LayerNormalization, vit.Tokens, vit.Attention)
def _transformer(rewriter: Rewriter, op: Op, inputs: list[Value]) -> Value:
    """Int8 kernels have no layer normalization, softmax and products of activations of their own."""
    raise UsageError(
        "transformers are not quantized: layer normalization and attention would stay in float",
        where=op.layer.name,
        fix="use the float file: edgecls export RUN --precision fp32,fp16",
    )


@rule(kl.Activation)
def _activation(rewriter: Rewriter, op: Op, inputs: list[Value]) -> Value:
    kind = keras.activations.serialize(op.layer.activation)
    if kind == "linear":
        return replace(inputs[0], users=rewriter.users(op))
    if kind in ("relu", "relu6"):
        value = inputs[0] if kind == "relu" and not inputs[0].shift else rewriter.plain(inputs[0])
        return rewriter.result(op, _clone(op.layer)(rewriter.fused(value)), scale=value.scale)
    raise UsageError(f"no quantization rule for activation {kind!r}", where=op.layer.name)
