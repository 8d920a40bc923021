"""What ``keras.applications.ConvNeXt`` has of its own: layer scale, stochastic depth, depthwise convolutions as grouped ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from keras import layers
from keras.src.applications.convnext import LayerScale, StochasticDepth

from edgecls.quantize.registry import lowers

if TYPE_CHECKING:
    from edgecls.quantize.lower import Lowering

Tensor = Any


@lowers(layers.Conv2D)
def _convolution(lowering: Lowering, layer: layers.Conv2D, inputs: Tensor) -> Tensor:
    """A depthwise convolution if each channel is a group: it has a faster kernel."""
    one_each = layer.groups == layer.filters == inputs.shape[-1] > 1
    if not one_each or len(set(layer.strides)) > 1:
        return lowering.plain(layer, inputs)
    keys = ("kernel_size", "strides", "padding", "data_format", "dilation_rate", "use_bias")
    like = layers.DepthwiseConv2D(**{key: getattr(layer, key) for key in keys})
    outputs = lowering.clone(layer, like=like, weights={"kernel": "kernel"})(inputs)
    return lowering.activate(layer.activation, f"{layer.name}.act", outputs)


@lowers(StochasticDepth)
def _stochastic_depth(lowering: Lowering, layer: Any, inputs: Tensor) -> Tensor:
    return inputs


@lowers(LayerScale)
def _layer_scale(lowering: Lowering, layer: Any, inputs: Tensor) -> Tensor:
    """In the kernel of the dense layer before it, if that has no other reader; else an operation of its own."""
    factor, before = layer.gamma.numpy(), inputs._keras_history.operation
    source = layer.input._keras_history.operation
    alone = len(getattr(source, "_inbound_nodes", ())) == len(getattr(source, "_outbound_nodes", ())) == 1
    if type(before) is layers.Dense and alone and before.name not in lowering.kept:
        before.set_weights([weight * factor for weight in before.get_weights()])
        return inputs
    return layers.Rescaling(factor.tolist(), np.zeros_like(factor).tolist(), name=lowering.name(layer.name))(
        inputs
    )
