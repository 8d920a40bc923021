"""Bare operations of Keras (``x * 2 + 1``, ``keras.ops.relu6(x)``, ``x[..., :8]``), each as the layer that computes the same.

``inputs`` of such a rule is the operation's tensor, or all its positional arguments if it has several.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import layers
from keras.src.ops import image, nn
from keras.src.ops import numpy as knp

from edgecls.quantize.registry import lowers, missing
from edgecls.zoo import layers as zoo_layers

if TYPE_CHECKING:
    from edgecls.quantize.lower import Lowering

Tensor = Any

MAP = 4  # dimensions of a batch of maps

ACTIVATIONS = {
    nn.Relu: "relu",
    nn.Relu6: "relu6",
    nn.Sigmoid: "sigmoid",
    nn.Silu: "silu",
    nn.HardSigmoid: "hard_sigmoid",
    nn.HardSilu: "hard_silu",
    nn.Gelu: "gelu",
    nn.Softmax: "softmax",
    knp.Tanh: "tanh",
}


@lowers(*ACTIVATIONS)
def _activation(lowering: Lowering, op: Any, inputs: Tensor) -> Tensor:
    if type(op) is nn.Softmax and op.axis not in (-1, len(inputs.shape) - 1):
        raise missing(op, f"softmax over axis {op.axis}")
    return lowering.activate(keras.activations.get(ACTIVATIONS[type(op)]), op.name, inputs)


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
    if type(op) is not knp.Maximum or constant is None or np.any(constant != 0):
        raise missing(op, f"{type(op).__name__.lower()}; maximum(x, 0) has one")
    return lowering.apply(layers.ReLU(name=op.name), tensors[0])


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
    return lowering.apply(layers.Rescaling(*parts, name=op.name), tensors[0])


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


@lowers(knp.Mean, knp.Max, knp.Amax)
def _reduced(lowering: Lowering, op: Any, inputs: Tensor) -> Tensor:
    axes = () if op.axis is None else tuple(axis % len(inputs.shape) for axis in np.atleast_1d(op.axis))
    if len(inputs.shape) != MAP or sorted(axes) != [1, 2]:
        raise missing(op, f"{type(op).__name__.lower()} over axes {op.axis}; over height and width has one")
    mean = type(op) is knp.Mean
    pool = layers.GlobalAveragePooling2D if mean else layers.GlobalMaxPooling2D
    return lowering.apply(pool(keepdims=op.keepdims, name=op.name), inputs)


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


@lowers(knp.GetItem)
def _slice(lowering: Lowering, op: Any, inputs: Sequence[Any]) -> Tensor:
    """Crops of height and width, and runs of channels."""
    x, key = inputs
    keys = list(key) if isinstance(key, tuple) else [key]
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        keys[at : at + 1] = [slice(None)] * (len(x.shape) - len(keys) + 1)
    keys += [slice(None)] * (len(x.shape) - len(keys))
    plain = all(isinstance(k, slice) and k.step in (None, 1) for k in keys)
    if not plain or keys[0] != slice(None) or len(keys) not in (2, MAP):
        raise missing(op, "an index or a slice with steps; runs of rows, columns and channels have one")
    spans = [k.indices(size)[:2] for k, size in zip(keys[1:], x.shape[1:], strict=True)]
    if len(keys) == MAP:
        crops = [(start, size - stop) for (start, stop), size in zip(spans[:2], x.shape[1:3], strict=True)]
        if any(map(any, crops)):
            x = lowering.apply(layers.Cropping2D(crops, name=f"{op.name}.crop"), x)
    if spans[-1] != (0, x.shape[-1]):
        x = lowering.apply(zoo_layers.Channels(*spans[-1], name=op.name), x)
    return x


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
