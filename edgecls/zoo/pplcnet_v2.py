"""PP-LCNetV2 small, base and large (PaddleClas, 2022, docs of PP-LCNetV2): separable convolutions whose depthwise
kernels are sums of several sizes in training.

The gate of its squeeze-excite is a true sigmoid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import layers

from edgecls.zoo.blocks import Head, Taps, activation, conv_bn, squeeze_excite, wide_classifier
from edgecls.zoo.layers import Tensor
from edgecls.zoo.state import DEPTHWISE, state_name


@keras.saving.register_keras_serializable(package="edgecls")
class DeployKernel(layers.Layer):
    """Keeps the depthwise kernel and bias that parallel branches are fused into for deployment; passes its input on.

    The originals carry these arrays untrained beside the branches, and published files have them.
    """

    state_axes = DEPTHWISE
    names_fused_sum = True  # see edgecls.reparam

    def __init__(self, kernel_size: int, **kwargs: Any) -> None:
        super().__init__(**{"trainable": False, **kwargs})
        self.kernel_size = int(kernel_size)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = input_shape[-1]
        size = self.kernel_size
        self.kernel = self.add_weight((size, size, channels, 1), initializer="zeros", name="kernel")
        self.bias = self.add_weight((channels,), initializer="zeros", name="bias")

    def call(self, inputs: Tensor) -> Tensor:
        return inputs

    def state_variables(self) -> dict[str, keras.Variable]:
        """The variables by their names in the state."""
        return {f"{state_name(self)}.weight": self.kernel, f"{state_name(self)}.bias": self.bias}

    def to_keras(self) -> Callable[[Tensor], Tensor]:
        """No layer of Keras is needed: the layer only carries arrays and passes its input on."""
        return lambda inputs: inputs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kernel_size": self.kernel_size}


class Stage(NamedTuple):
    """A run of blocks; only the first strides and doubles the width."""

    kernels: tuple[int, ...]  # of the depthwise convolutions that are summed
    split: bool  # two 1x1 convolutions with half the width between them
    residual: bool
    se: bool


STAGES = (
    Stage((3,), False, False, False),  # resolution in: 112
    Stage((3,), False, False, False),  # 56
    Stage((5, 3, 1), True, False, True),  # 28
    Stage((5, 3, 1), False, True, False),  # 14
)
LAST = 1280


MODELS = {  # width of the stem, blocks of each stage
    "PPLCNetV2_small": (24, (2, 2, 4, 2)),
    "PPLCNetV2_base": (32, (2, 2, 6, 2)),
    "PPLCNetV2_large": (40, (2, 2, 8, 2)),
}


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    width, repeats = MODELS[name]
    taps = Taps(x)
    x = conv_bn(x, width, 3, 2, act="relu", name="stem.0")
    x = taps.add(_block(x, 2 * width, 1, STAGES[0], "stem.1"), "stem")
    for i, stage in enumerate(STAGES):
        out = 2 * x.shape[-1]
        for repeat in range(repeats[i]):
            x = taps.add(_block(x, out, 1 if repeat else 2, stage, f"stages.{i}.{repeat}"), i + 1)
    return taps, wide_classifier(x, LAST, "relu", head, act_name="act")


def _block(x: Tensor, out: int, stride: int, stage: Stage, name: str) -> Tensor:
    y = _depthwise(x, stride, stage.kernels, name)
    if stage.se:
        y = squeeze_excite(y, y.shape[-1] // 4, gate="sigmoid", name=f"{name}.se")
    if stage.split:
        y = conv_bn(y, out // 2, 1, act="relu", name=f"{name}.pw_conv_1")
    y = conv_bn(y, out, 1, act="relu", name=f"{name}.pw_conv{'_2' if stage.split else ''}")
    return layers.Add(name=f"{name}.add")([x, y]) if stage.residual and stride == 1 else y


def _depthwise(x: Tensor, stride: int, kernels: tuple[int, ...], name: str) -> Tensor:
    channels = x.shape[-1]
    if len(kernels) == 1:
        return conv_bn(x, channels, kernels[0], stride, groups=channels, act="relu", name=f"{name}.dw_conv")
    terms = [
        conv_bn(x, channels, kernel, stride, groups=channels, name=f"{name}.dw_conv_list.{i}")
        for i, kernel in enumerate(kernels)
        if kernel > 1 or stride == 1
    ]
    x = layers.Add(name=f"{name}.dw_add")(terms)
    x = DeployKernel(max(kernels), name=f"{name}.dw_conv")(x)
    return activation(x, "relu", f"{name}.act")
