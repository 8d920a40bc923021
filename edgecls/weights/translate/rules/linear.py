"""Operations with weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from edgecls.weights.translate.registry import Node, translates
from edgecls.weights.translate.rules.pools import cells_of, padding_of, pair
from edgecls.weights.translate.values import Unsupported, Value, as_maps, standard
from edgecls.zoo import layers as zoo_layers


def _weighted(layer: keras.Layer, x: Any, weights: Sequence[np.ndarray | None]) -> Any:
    result = layer(x)
    layer.set_weights([array for array in weights if array is not None])
    return result


@translates("Conv")
def _conv(node: Node) -> Value:
    x, kernel = as_maps(node.value(), node.part("order")), node.array(1)
    bias = node.array(2) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    groups, channels = node.setting("group", default=1), x.shape[1]
    strides, dilations = pair(node, "strides"), pair(node, "dilations")
    depthwise, even = groups == channels > 1, strides[0] == strides[1]
    padding, pads = padding_of(node, x, kernel.shape[2:], strides, dilations)
    if depthwise and not even:  # the strides come after it, and "same" would pad for none
        padding, (pads, _) = "valid", cells_of(node, x, kernel.shape[2:], strides, dilations)
    if any(map(any, pads)):
        x = x.with_tensor(layers.ZeroPadding2D(pads, name=node.part("pad"))(x.tensor))
    common = {
        "kernel_size": kernel.shape[2:],
        "padding": padding,
        "dilation_rate": dilations,
        "use_bias": bias is not None,
        "name": node.name,
    }
    if not depthwise:
        kind = layers.Conv2D if groups == 1 else zoo_layers.GroupedConv2D
        layer = kind(kernel.shape[0], strides=strides, groups=groups, **common)
        return x.with_tensor(_weighted(layer, x.tensor, [kernel.transpose(2, 3, 1, 0), bias]))
    planes = kernel.reshape(groups, -1, *kernel.shape[2:]).transpose(2, 3, 0, 1)
    # TensorFlow has no other strides for these than even ones.
    layer = layers.DepthwiseConv2D(depth_multiplier=planes.shape[3], strides=strides if even else 1, **common)
    result = _weighted(layer, x.tensor, [planes, bias])
    return x.with_tensor(result if even else _every(result, strides, node))


def _every(x: Any, strides: Sequence[int], node: Node) -> Any:
    """Every so many rows and columns of maps. A run of them counts as channels, of which the first are kept: unlike a
    slice with steps, this has quantization rules.
    """
    rest = [(0, -size % stride) for size, stride in zip(x.shape[1:3], strides, strict=True)]
    if any(map(any, rest)):
        x = layers.ZeroPadding2D(rest, name=node.part("rest"))(x)
    _, height, width, channels = x.shape
    rows, columns = height // strides[0], width // strides[1]
    for axis, shape in enumerate(
        [(rows, 1, strides[0] * width * channels), (rows, columns, strides[1] * channels)]
    ):
        if strides[axis] > 1:
            runs = layers.Reshape(shape, name=node.part(f"runs{axis}"))(x)
            x = zoo_layers.Channels(0, shape[2] // strides[axis], name=node.part(f"first{axis}"))(runs)
    return layers.Reshape((rows, columns, channels), name=node.part("stride"))(x)


@translates("Gemm")
def _gemm(node: Node) -> Value:
    x, kernel = standard(node.value(), node.part("order")), node.array(1)
    if node.setting("transA", default=0) or x.axes[0] > 0:
        raise Unsupported("a transposed batch")
    kernel = kernel.T if node.setting("transB", default=0) else kernel
    kernel = kernel * np.float32(node.setting("alpha", default=1.0))
    bias = None
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = node.array(2) * np.float32(node.setting("beta", default=1.0))
        bias = np.broadcast_to(bias.reshape(-1), kernel.shape[1:])
    layer = layers.Dense(kernel.shape[1], use_bias=bias is not None, name=node.name)
    return x.with_tensor(_weighted(layer, x.tensor, [kernel, bias]))


@translates("MatMul")
def _matmul(node: Node) -> Value:
    left, right = node.inputs[:2]
    if isinstance(left, Value) and isinstance(right, Value):
        a, b = (standard(v, node.part(side)) for v, side in ((left, "left"), (right, "right")))
        if a.axes != b.axes or len(a.axes) <= 2 or a.axes[0] >= a.rank - 2:
            raise Unsupported("a product over the batch")
        return a.with_tensor(ops.matmul(a.tensor, b.tensor))
    x, kernel = standard(node.value(), node.part("order")), node.array(1)
    if kernel.ndim != 2 or x.axes[-1] != x.rank - 1:
        raise Unsupported(f"a matrix of {kernel.ndim} axes")
    layer = layers.Dense(kernel.shape[1], use_bias=False, name=node.name)
    return x.with_tensor(_weighted(layer, x.tensor, [kernel]))


@translates("BatchNormalization")
def _batch_norm(node: Node) -> Value:
    x = node.value()
    if x.axes[-1] != 1 or x.axes[0] != 0:  # the channels are not the last axis
        x = as_maps(x, node.part("order"))
    layer = zoo_layers.BatchNormalization(
        momentum=node.setting("momentum", default=0.9),
        epsilon=node.setting("epsilon", default=1e-5),
        name=node.name,
    )
    return x.with_tensor(_weighted(layer, x.tensor, [node.array(i) for i in (1, 2, 3, 4)]))


@translates("LayerNormalization")
def _layer_norm(node: Node) -> Value:
    x = standard(node.value(), node.part("order"))
    if node.setting("axis", default=-1) % x.rank != x.axes[-1]:
        raise Unsupported("a normalization over several axes")
    bias = node.array(2) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    layer = layers.LayerNormalization(
        epsilon=node.setting("epsilon", default=1e-5), center=bias is not None, name=node.name
    )
    return x.with_tensor(_weighted(layer, x.tensor, [node.array(1), bias]))
