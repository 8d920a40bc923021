"""Bare operations of Keras (``x * 2 + 1``, ``keras.ops.relu6(x)``, ``x[..., :8]``), each as the layer that computes the same.

``inputs`` of such a rule is the operation's tensor, or all its positional arguments if it has several.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import layers
from keras.src.ops import core, image, nn
from keras.src.ops import numpy as knp

from edgecls.quantize.registry import lowers, missing, plans
from edgecls.quantize.rules.selections import MAP, ReverseChannels
from edgecls.quantize.rules.shapes import same_grid

if TYPE_CHECKING:
    from edgecls.graph import Op
    from edgecls.quantize.lower import Lowering
    from edgecls.quantize.plan import Plan, Value

Tensor = Any

ACTIVATIONS = {
    nn.Relu: "relu",
    nn.Relu6: "relu6",
    nn.Sigmoid: "sigmoid",
    nn.Silu: "silu",
    nn.HardSigmoid: "hard_sigmoid",
    nn.HardSilu: "hard_silu",
    nn.Gelu: "gelu",
    nn.Softmax: "softmax",
    nn.LogSigmoid: "log_sigmoid",
    nn.Softplus: "softplus",
    nn.Softsign: "softsign",
    nn.Squareplus: "squareplus",
    nn.TanhShrink: "tanh_shrink",
    knp.Exp: "exponential",
    knp.Tanh: "tanh",
}


@lowers(*ACTIVATIONS)
def _activation(lowering: Lowering, op: Any, inputs: Tensor) -> Tensor:
    if type(op) is nn.Softmax and op.axis not in (-1, len(inputs.shape) - 1):
        raise missing(op, f"softmax over axis {op.axis}")
    return lowering.activate(keras.activations.get(ACTIVATIONS[type(op)]), op.name, inputs)


@lowers(nn.Normalize)
def _unit(lowering: Lowering, op: Any, inputs: Tensor) -> Tensor:
    if op.order != 2:
        raise missing(op, f"a normalization of order {op.order}; of order 2 there is one")
    return lowering.apply(layers.UnitNormalization(op.axis, name=op.name), inputs)


@lowers(nn.LeakyRelu)
def _leaky_relu(lowering: Lowering, op: Any, inputs: Tensor) -> Tensor:
    return lowering.apply(layers.LeakyReLU(op.negative_slope, name=op.name), inputs)


@lowers(knp.Clip)
def _clip(lowering: Lowering, op: Any, inputs: Tensor) -> Tensor:
    if np.any(np.asarray(op.x_min) != 0) or np.size(op.x_max) != 1 or not float(op.x_max) > 0:
        raise missing(op, f"clip to {op.x_min} .. {op.x_max}; to 0 .. x there is one")
    return lowering.apply(layers.ReLU(float(op.x_max), name=op.name), inputs)


@lowers(knp.Maximum, knp.Minimum)
def _extreme(lowering: Lowering, op: Any, inputs: Sequence[Any]) -> Tensor:
    tensors, constant = _tensors(inputs), _constant(inputs)
    if constant is None:
        kind = layers.Maximum if isinstance(op, knp.Maximum) else layers.Minimum
        return lowering.apply(kind(name=op.name), tensors)
    if type(op) is not knp.Maximum or np.any(constant != 0):
        raise missing(op, f"{type(op).__name__.lower()} with a constant; maximum(x, 0) has one")
    return lowering.apply(layers.ReLU(name=op.name), tensors[0])


@lowers(layers.Maximum, layers.Minimum)
def _extreme_of_tensors(lowering: Lowering, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    """``a + relu(b - a)``, or ``a - relu(a - b)``."""
    largest, *others = inputs
    highest = isinstance(layer, layers.Maximum)
    for other in others:
        terms = [other, largest] if highest else [largest, other]
        gap = layers.Subtract(name=lowering.name(f"{layer.name}.gap"))(terms)
        gap = layers.ReLU(name=lowering.name(f"{layer.name}.relu"))(gap)
        join = layers.Add if highest else layers.Subtract
        largest = join(name=lowering.name(layer.name))([largest, gap])
    return largest


@lowers(knp.Absolute, knp.Abs)
def _absolute(lowering: Lowering, op: Any, inputs: Tensor) -> Tensor:
    minus = layers.Rescaling(-1.0, name=lowering.name(f"{op.name}.minus"))(inputs)
    return lowering.apply(layers.Maximum(name=op.name), [inputs, minus])


@lowers(core.Cast)
def _cast(lowering: Lowering, op: Any, inputs: Tensor) -> Tensor:
    if "float" not in keras.backend.standardize_dtype(op.dtype):
        raise missing(op, f"a cast to {op.dtype}")
    return inputs


@lowers(knp.Add, knp.Subtract, knp.Multiply, knp.TrueDivide, knp.Divide)
def _arithmetic(lowering: Lowering, op: Any, inputs: Sequence[Any]) -> Tensor:
    """With a constant an affine map of each channel, with two tensors a layer."""
    tensors, constant = _tensors(inputs), _constant(inputs)
    kind = type(op).__name__.removeprefix("True")
    if constant is None:
        if kind == "Divide":
            raise missing(op, "a division by a tensor; multiply by a gate instead")
        return lowering.apply(getattr(layers, kind)(name=op.name), tensors)
    scale, offset = _line(op, kind, constant, first=tensors[0] is inputs[0])
    channels = tensors[0].shape[-1]
    parts = []
    for part in (scale, offset):
        if part.size not in (1, channels) or (part.size > 1 and part.shape[-1] != channels):
            raise missing(op, f"a constant of shape {part.shape}; one a channel has one")
        parts.append(part.reshape(-1).tolist() if part.size > 1 else float(part.reshape(())))
    before = tensors[0]._keras_history.operation
    if not isinstance(before, ReverseChannels):
        return lowering.apply(layers.Rescaling(*parts, name=op.name), tensors[0])
    # The normalization of pixels has to come first, as in preprocess_input of ResNet and VGG.
    flipped = [part[::-1] if isinstance(part, list) else part for part in parts]
    x = lowering.apply(layers.Rescaling(*flipped, name=op.name), before.input)
    return ReverseChannels(name=lowering.name(before.name))(x)


def _line(op: Any, kind: str, constant: np.ndarray, first: bool) -> tuple[np.ndarray, np.ndarray]:
    """Factor and summand; ``first``: the tensor is the left operand."""
    one, zero = np.ones(()), np.zeros(())
    if kind == "Divide" and not first:
        raise missing(op, "a division by a tensor; multiply by a gate instead")
    lines = {
        "Add": (one, constant),
        "Subtract": (one, -constant) if first else (-one, constant),
        "Multiply": (constant, zero),
        "Divide": (1 / np.where(constant == 0, np.nan, constant), zero),
    }
    return lines[kind]


@lowers(knp.Negative)
def _negative(lowering: Lowering, op: Any, inputs: Tensor) -> Tensor:
    return lowering.apply(layers.Rescaling(-1.0, name=op.name), inputs)


@lowers(knp.Power)
def _power(lowering: Lowering, op: Any, inputs: Sequence[Any]) -> Tensor:
    x, exponent = inputs
    if isinstance(exponent, keras.KerasTensor) or np.any(np.asarray(exponent) != 2):
        raise missing(op, "a power; x ** 2 has one")
    return _square(lowering, op, x)


@lowers(knp.Square)
def _square(lowering: Lowering, op: Any, inputs: Tensor) -> Tensor:
    return lowering.apply(layers.Multiply(name=op.name), [inputs, inputs])


@lowers(knp.Concatenate)
def _concatenate(lowering: Lowering, op: Any, inputs: Sequence[Tensor]) -> Tensor:
    return lowering.apply(layers.Concatenate(op.axis, name=op.name), list(inputs))


@lowers(knp.Reshape)
def _reshape(lowering: Lowering, op: Any, inputs: Tensor) -> Tensor:
    shape = tuple(op.newshape)
    if shape[0] not in (-1, None) and shape[0] != inputs.shape[0]:
        raise missing(op, f"a reshape to {shape}, which mixes images; reshape to (-1, ...)")
    return _reshaped(lowering, op, inputs, [-1 if size is None else size for size in shape[1:]])


@lowers(knp.Squeeze)
def _squeeze(lowering: Lowering, op: Any, inputs: Tensor) -> Tensor:
    axes = np.atleast_1d([] if op.axis is None else op.axis) % len(inputs.shape)
    gone = [i for i, size in enumerate(inputs.shape) if size == 1 and (op.axis is None or i in axes)]
    return _reshaped(lowering, op, inputs, [s for i, s in enumerate(inputs.shape) if i and i not in gone])


@lowers(knp.ExpandDims)
def _expand(lowering: Lowering, op: Any, inputs: Tensor) -> Tensor:
    shape = list(inputs.shape)
    for axis in sorted(a % (len(shape) + 1) for a in np.atleast_1d(op.axis)):
        shape.insert(axis, 1)
    return _reshaped(lowering, op, inputs, shape[1:])


def _reshaped(lowering: Lowering, op: Any, inputs: Tensor, shape: Sequence[int]) -> Tensor:
    return lowering.apply(layers.Reshape(tuple(int(size) for size in shape), name=op.name), inputs)


@lowers(knp.Transpose)
def _transpose(lowering: Lowering, op: Any, inputs: Tensor) -> Tensor:
    axes = [axis % len(inputs.shape) for axis in op.axes or reversed(range(len(inputs.shape)))]
    if axes[0] != 0:
        raise missing(op, "a transposition of the batch")
    return lowering.apply(layers.Permute(axes[1:], name=op.name), inputs)


@lowers(knp.Pad)
def _pad(lowering: Lowering, op: Any, inputs: Any) -> Tensor:
    x, value = inputs if isinstance(inputs, list | tuple) else (inputs, None)
    widths = tuple(op.pad_width)
    if (
        op.mode != "constant"
        or value not in (None, 0, 0.0)
        or len(widths) != MAP
        or any(widths[0] + widths[3])
    ):
        raise missing(op, "a pad; zeros around height and width have one")
    return lowering.apply(layers.ZeroPadding2D(widths[1:3], name=op.name), x)


@lowers(knp.Mean, knp.Max, knp.Amax, knp.Sum)
def _reduced(lowering: Lowering, op: Any, inputs: Tensor) -> Tensor:
    axes = (
        () if op.axis is None else tuple(sorted(axis % len(inputs.shape) for axis in np.atleast_1d(op.axis)))
    )
    kind = type(op).__name__.lower().removeprefix("a")
    if len(inputs.shape) != MAP or axes not in ((1, 2), (MAP - 1,)):
        raise missing(
            op, f"{kind} over axes {op.axis}; over height and width, or the channels of a map, has one"
        )
    if axes == (MAP - 1,):
        return _over_channels(lowering, op, inputs, kind)
    pool = layers.GlobalMaxPooling2D if kind == "max" else layers.GlobalAveragePooling2D
    if kind != "sum":
        return lowering.apply(pool(keepdims=op.keepdims, name=op.name), inputs)
    mean = lowering.apply(pool(keepdims=op.keepdims, name=f"{op.name}.mean"), inputs)
    return lowering.apply(layers.Rescaling(float(np.prod(inputs.shape[1:3])), name=op.name), mean)


def _over_channels(lowering: Lowering, op: Any, inputs: Tensor, kind: str) -> Tensor:
    """The mean and sum of the channels are a convolution, whose kernel does not train."""
    *size, channels = inputs.shape[1:]
    name = lowering.name(op.name)
    if kind == "max":
        outputs = ChannelMax(name=name)(inputs)
    else:
        reduced = layers.Conv2D(1, 1, use_bias=False, trainable=False, name=name)
        outputs = reduced(inputs)
        reduced.kernel.assign(np.full((1, 1, channels, 1), 1.0 if kind == "sum" else 1 / channels))
    return outputs if op.keepdims else layers.Reshape(size, name=lowering.name(f"{name}.flat"))(outputs)


@keras.saving.register_keras_serializable(package="edgecls")
class ChannelMax(layers.Layer):
    """The largest value of all channels, [batch, height, width, 1]."""

    def call(self, inputs: Tensor) -> Tensor:
        return keras.ops.max(inputs, axis=-1, keepdims=True)


@plans(ChannelMax)
def _channel_max(plan: Plan, op: Op, values: list[Value]) -> Value:
    return same_grid(plan, op, values[0], again=True)


@lowers(nn.DepthToSpace, nn.SpaceToDepth)
def _blocks(lowering: Lowering, op: Any, inputs: Tensor) -> Tensor:
    """Reshapes and a transposition."""
    size = op.block_size
    height, width, channels = inputs.shape[1:]
    if isinstance(op, nn.DepthToSpace):
        parts, order = (height, width, size, size, channels // size**2), (1, 3, 2, 4, 5)
        shape = (height * size, width * size, channels // size**2)
    else:
        parts, order = (height // size, size, width // size, size, channels), (1, 3, 2, 4, 5)
        shape = (height // size, width // size, channels * size**2)
    x = layers.Reshape(parts, name=lowering.name(f"{op.name}.parts"))(inputs)
    x = layers.Permute(order, name=lowering.name(f"{op.name}.order"))(x)
    return layers.Reshape(shape, name=lowering.name(op.name))(x)


@lowers(nn.MaxPool, nn.AveragePool)
def _pool(lowering: Lowering, op: Any, inputs: Tensor) -> Tensor:
    pool = layers.MaxPooling2D if type(op) is nn.MaxPool else layers.AveragePooling2D
    return lowering.apply(pool(op.pool_size, op.strides, op.padding, name=op.name), inputs)


@lowers(layers.Resizing, image.Resize)
def _resize(lowering: Lowering, op: Any, inputs: Tensor) -> Tensor:
    target = (op.height, op.width) if isinstance(op, layers.Resizing) else tuple(op.size)
    height, width = inputs.shape[1:3]
    if target == (height, width):
        return inputs
    if target[0] % height or target[1] % width or getattr(op, "crop_to_aspect_ratio", False):
        raise missing(
            op, f"a resize of {height} x {width} to {target[0]} x {target[1]}; whole multiples have one"
        )
    size = target[0] // height, target[1] // width
    return lowering.apply(layers.UpSampling2D(size, interpolation=op.interpolation, name=op.name), inputs)


@lowers(layers.CenterCrop)
def _center_crop(lowering: Lowering, layer: Any, inputs: Tensor) -> Tensor:
    spare = [
        size - wanted for size, wanted in zip(inputs.shape[1:3], (layer.height, layer.width), strict=True)
    ]
    if min(spare) < 0:
        raise missing(layer, "a center crop that enlarges")
    crops = [(rest // 2, rest - rest // 2) for rest in spare]
    return lowering.apply(layers.Cropping2D(crops, name=layer.name), inputs)


def _tensors(inputs: Sequence[Any]) -> list[Tensor]:
    return [x for x in inputs if isinstance(x, keras.KerasTensor)]


def _constant(inputs: Sequence[Any]) -> np.ndarray | None:
    """The operand that is no tensor of the network, if there is one."""
    constants = [
        np.asarray(keras.ops.convert_to_numpy(x), float)
        for x in inputs
        if not isinstance(x, keras.KerasTensor)
    ]
    return constants[0] if constants else None
