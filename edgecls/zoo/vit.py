"""ViT (Dosovitskiy et al., 2020, https://arxiv.org/abs/2010.11929) and DeiT (Touvron et al., 2020,
https://arxiv.org/abs/2012.12877), which may have a second token and classifier for distillation: logits are the mean.

The one feature map is that of the patches' tokens at the end, normalized.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import initializers, layers, ops

from edgecls.zoo.blocks import Head, Taps, activation, classifier, conv
from edgecls.zoo.layers import Tensor

PATCH = 16
HEADS = {"cls_token": "head", "dist_token": "head_dist"}  # tokens to the classifiers that read them


class Variant(NamedTuple):
    """One network of the family."""

    width: int
    heads: int
    depth: int = 12
    distilled: bool = False
    expansion: int = 4  # of the hidden layers
    epsilon: float = 1e-6
    scale: float = 1 / 8  # of the products of queries and keys: 1 / sqrt(width / heads)
    bias: bool = True  # of queries, keys and values
    drop_path: float = (
        0.0  # share of samples that skip the last block's branches in training; it grows with depth
    )


PLAIN = {
    "ViT_small": Variant(768, 8, depth=8, expansion=3, epsilon=1e-5, scale=768**-0.5, bias=False),
    "ViT_base": Variant(768, 12),
    "DeiT_tiny": Variant(192, 3, drop_path=0.1),
    "DeiT_small": Variant(384, 6, drop_path=0.1),
    "DeiT_base": Variant(768, 12, drop_path=0.1),
}
DISTILLED = {f"{name}_distilled": PLAIN[name]._replace(distilled=True) for name in list(PLAIN)[2:]}
MODELS = {f"{name}_patch16_224": variant for name, variant in (PLAIN | DISTILLED).items()}


@keras.saving.register_keras_serializable(package="edgecls")
class Tokens(layers.Layer):
    """Learned tokens before those of the patches [batch, patches, width], and a learned position added to each."""

    state_axes = None

    def __init__(self, names: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.names = list(names)

    def build(self, input_shape: tuple[int, ...]) -> None:
        _, count, width = input_shape
        shapes = {**dict.fromkeys(self.names, 1), "pos_embed": len(self.names) + count}
        *self.tokens, self.positions = (
            self.add_weight((1, length, width), _normal(), name=name) for name, length in shapes.items()
        )

    def call(self, inputs: Tensor) -> Tensor:
        shape = (ops.shape(inputs)[0], 1, inputs.shape[-1])
        learned = [ops.broadcast_to(token, shape) for token in self.tokens]
        return ops.concatenate([*learned, inputs], 1) + self.positions

    def state_variables(self) -> dict[str, keras.Variable]:
        """The variables by their names in the original's state: ``cls_token``, ``pos_embed`` and so on."""
        return {variable.name: variable for variable in self.weights}

    def to_keras(self) -> Callable[[Tensor], Tensor]:
        """The same in Keras' own layers: rows of zeros for the tokens, and an embedding of the positions.

        A learned token and its position are one row of the embedding.
        """
        pad = layers.ZeroPadding1D((len(self.tokens), 0), name=f"{self.name}.pad")
        embedding = layers.Embedding(*self.positions.shape[1:], name=f"{self.name}.positions")
        add = layers.Add(name=self.name)

        def tokens_and_positions(inputs: Tensor) -> Tensor:
            padded = pad(inputs)
            positions = ops.zeros_like(padded[:, :, 0]) + np.arange(padded.shape[1], dtype="float32")
            embedded = embedding(positions)
            rows = np.array(self.positions[0])
            rows[: len(self.tokens)] += np.concatenate([np.array(token[0]) for token in self.tokens])
            embedding.set_weights([rows])
            return add([padded, embedded])

        return tokens_and_positions

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "names": self.names}


@keras.saving.register_keras_serializable(package="edgecls")
class Attention(layers.Layer):
    """What each token gathers from all, [batch, tokens, width], of queries, keys and values [batch, tokens, 3 * width].

    Args:
        heads: Shares of the channels that attend on their own.
        scale: Factor of the products of queries and keys.
    """

    def __init__(self, heads: int, scale: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads, self.scale = int(heads), float(scale)

    def call(self, inputs: Tensor) -> Tensor:
        (_, count, channels), heads = inputs.shape, self.heads
        x = ops.reshape(inputs, (-1, count, 3 * heads, channels // (3 * heads)))
        queries, keys, values = ops.split(ops.transpose(x, (0, 2, 1, 3)), 3, axis=1)
        if isinstance(
            inputs, keras.KerasTensor
        ):  # for to_stock: TensorFlow's operations take no symbolic tensors
            products = ops.matmul(queries * self.scale, ops.transpose(keys, (0, 1, 3, 2)))
        else:  # the file has one operation less
            products = tf.matmul(queries * self.scale, keys, transpose_b=True)
        if self.compute_dtype == "float32":
            shares = ops.softmax(products)
        else:  # a sum of many small numbers
            shares = ops.cast(ops.softmax(ops.cast(products, "float32")), values.dtype)
        x = ops.matmul(shares, values)
        return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, count, channels // 3))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "heads": self.heads, "scale": self.scale}


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature map and its logits."""
    v, taps = MODELS[name], Taps(x)
    x = conv(x, v.width, PATCH, PATCH, bias=True, padding=0, name="patch_embed.proj")
    side, tokens = x.shape[1], list(HEADS)[: 1 + v.distilled]
    x = layers.Reshape((side * side, v.width), name="patches")(x)
    x = Tokens(tokens, name="tokens")(x)
    taps.end("stem", x)
    for i in range(v.depth):
        part, drop = f"blocks.{i}", v.drop_path * i / (v.depth - 1)
        y = layers.LayerNormalization(epsilon=v.epsilon, name=f"{part}.norm1")(x)
        y = _dense(y, 3 * v.width, f"{part}.attn.qkv", v.bias)
        y = Attention(v.heads, v.scale, name=f"{part}.attn.gather")(y)
        x = _add(x, _dense(y, v.width, f"{part}.attn.proj"), drop, f"{part}.attn")
        y = layers.LayerNormalization(epsilon=v.epsilon, name=f"{part}.norm2")(x)
        y = activation(_dense(y, v.expansion * v.width, f"{part}.mlp.fc1"), "gelu", f"{part}.mlp.act")
        x = _add(x, _dense(y, v.width, f"{part}.mlp.fc2"), drop, f"{part}.mlp")
        taps.end(i + 1, x)
    x = layers.LayerNormalization(epsilon=v.epsilon, name="norm")(x)
    taps.end(v.depth, x)
    patches = layers.Cropping1D((len(tokens), 0), name="norm.patches")(x)
    taps.add(layers.Reshape((side, side, v.width), name="norm.map")(patches))
    logits = []
    for i, token in enumerate(tokens):
        y, part = layers.Cropping1D((i, x.shape[1] - i - 1), name=f"norm.{token}")(x), HEADS[token]
        logits.append(classifier(y, head, name=part, init=0.02 * 3**0.5, prefix="dist." if i else ""))
    return taps, layers.Average(name="mean")(logits) if v.distilled else logits[0]


def _add(x: Tensor, y: Tensor, drop: float, name: str) -> Tensor:
    if drop:
        y = layers.Dropout(drop, (None, 1, 1), name=f"{name}.drop_path")(y)  # one choice a sample
    return layers.Add(name=f"{name}.add")([x, y])


def _dense(x: Tensor, width: int, name: str, bias: bool = True) -> Tensor:
    return layers.Dense(width, use_bias=bias, kernel_initializer=_normal(), name=name)(x)


def _normal() -> initializers.Initializer:
    return initializers.TruncatedNormal(stddev=0.02)
