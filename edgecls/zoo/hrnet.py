"""HRNet for classification (Wang et al., 2019, https://arxiv.org/abs/1908.07919): branches of four resolutions run side
by side and exchange their features after every four blocks.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from edgecls.zoo.blocks import Head, Style, Taps, activation, classifier, conv_bn
from edgecls.zoo.layers import Tensor

MODELS = {f"HRNet_W{width}_C": width for width in (18, 30, 32, 40, 44, 48, 64)}  # of the finest branch
MODULES = {2: 1, 3: 4, 4: 3}  # number of branches to modules with as many
HEAD = (32, 64, 128, 256)
STYLE = Style(msra=True)


@keras.saving.register_keras_serializable(package="edgecls")
class Repeat(layers.Layer):
    """Nearest upsampling along height and width by ``factor``, a power of 2, made of operations that XNNPACK runs."""

    def __init__(self, factor: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = int(factor)

    def call(self, inputs: Tensor) -> Tensor:
        (_, height, width, channels), factor = inputs.shape, self.factor
        x = ops.reshape(self._repeat(inputs, 3), (-1, height, 1, width * factor * channels))
        return ops.reshape(self._repeat(x, 2), (-1, height * factor, width * factor, channels))

    def _repeat(self, x: Tensor, axis: int) -> Tensor:
        for _ in range(self.factor.bit_length() - 1):  # in twos, because XNNPACK does not join eight maps
            x = ops.concatenate([x, x], axis)
        return x

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    width, taps = MODELS[name], Taps(x)
    for i in (1, 2):
        x = taps.add(conv_bn(x, 64, 3, 2, act="relu", style=STYLE, name=f"conv_layer1_{i}"), "stem")
    for i in range(4):
        x = _bottleneck(x, 64, i == 0, f"layer1.{i}")
    taps.end(1, x)
    branches = [conv_bn(x, width, 3, act="relu", style=STYLE, name="conv_tr1_1")]
    for count, modules in MODULES.items():
        # The next coarser branch starts from the coarsest one, or from the stem.
        part, source = ("conv_tr1_2", x) if count == 2 else (f"conv_tr{count - 1}", branches[-1])
        branches.append(conv_bn(source, width * 2 ** (count - 1), 3, 2, act="relu", style=STYLE, name=part))
        for module in range(modules):
            branches = _module(branches, f"st{count}.stage_func_list.{module}")
        taps.end(count, *branches)
    maps = [_bottleneck(b, HEAD[i], True, f"last_cls.func_list.{i}") for i, b in enumerate(branches)]
    x = taps.add(maps[0])
    for i, finer in enumerate(maps[1:]):
        part = f"cls_head_conv_list.{i}"
        x = conv_bn(x, finer.shape[-1], 3, 2, act="relu", style=STYLE, name=part)
        x = taps.add(layers.Add(name=f"{part}.add")([x, finer]))
    x = taps.add(conv_bn(x, 2048, 1, act="relu", style=STYLE, name="conv_last"), len(branches))
    return taps, classifier(x, head)


def _module(branches: list[Tensor], name: str) -> list[Tensor]:
    """Four blocks on each branch, then every branch gets the sum of all at its own resolution."""
    for i, x in enumerate(branches):
        for block in range(4):
            part = f"{name}.basic_block_list.{i}.{block}"
            y = conv_bn(x, x.shape[-1], 3, act="relu", style=STYLE, name=f"{part}.conv1")
            y = conv_bn(y, x.shape[-1], 3, style=STYLE, name=f"{part}.conv2")
            x = activation(layers.Add(name=f"{part}.add")([y, x]), "relu", f"{part}.relu")
        branches[i] = x
    number, fused = 0, []
    for to, target in enumerate(branches):
        terms = [target]
        for origin, y in enumerate(branches):
            # Up by a 1x1 convolution and repetition of cells, down by a 3x3 convolution for each factor of 2.
            steps = max(to - origin, int(origin > to))
            for step in range(steps):
                last = step == steps - 1
                kernel, stride = (1, 1) if origin > to else (3, 2)
                out, part = (target if last else y).shape[-1], f"{name}.fuse_func.residual_func_list.{number}"
                act = None if last else "relu"
                y = conv_bn(y, out, kernel, stride, act=act, style=STYLE, name=part)
                number += 1
            if origin > to:
                y = Repeat(2 ** (origin - to), name=f"{part}.up")(y)
            if origin != to:
                terms.append(y)
        x = layers.Add(name=f"{name}.fuse{to}.add")(terms)
        fused.append(activation(x, "relu", f"{name}.fuse{to}.relu"))
    return fused


def _bottleneck(x: Tensor, width: int, project: bool, name: str) -> Tensor:
    y = conv_bn(x, width, 1, act="relu", style=STYLE, name=f"{name}.conv1")
    y = conv_bn(y, width, 3, act="relu", style=STYLE, name=f"{name}.conv2")
    y = conv_bn(y, 4 * width, 1, style=STYLE, name=f"{name}.conv3")
    if project:
        x = conv_bn(x, 4 * width, 1, style=STYLE, name=f"{name}.conv_down")
    return activation(layers.Add(name=f"{name}.add")([y, x]), "relu", f"{name}.relu")
