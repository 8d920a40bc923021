"""3x3 pooling of stride 2 with a padding of one cell on every side, as in PaddlePaddle: padded cells do not count."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from edgecls.zoo.layers import Tensor


class _EdgePooling:
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "pool_size": 3, "strides": 2, "padding": "valid"})

    def compute_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        batch, height, width, channels = input_shape
        return batch, (height + 1) // 2, (width + 1) // 2, channels


@keras.saving.register_keras_serializable(package="edgecls")
class EdgeMaxPooling2D(_EdgePooling, layers.MaxPooling2D):
    """Maximum of each window, for maps that may be negative.

    PaddlePaddle pads with -inf. Here the first row and column are repeated instead, and the last ones where the size is
    odd. The maximum is the same, because a window that holds the copy also holds the original.
    """

    def call(self, inputs: Tensor) -> Tensor:
        for axis in (1, 2):
            first = inputs[:, :1] if axis == 1 else inputs[:, :, :1]
            inputs = ops.concatenate([first, inputs], axis)
            if inputs.shape[axis] % 2 == 0:  # of an odd size: the window at the end needs its padding, too
                last = inputs[:, -1:] if axis == 1 else inputs[:, :, -1:]
                inputs = ops.concatenate([inputs, last], axis)
        return super().call(inputs)


@keras.saving.register_keras_serializable(package="edgecls")
class EdgeAveragePooling2D(_EdgePooling, layers.AveragePooling2D):
    """Average of each window over the cells of the map, without the padded ones."""

    def call(self, inputs: Tensor) -> Tensor:
        outputs = super().call(ops.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0))))
        scales = []
        for size, length in zip(inputs.shape[1:3], outputs.shape[1:3], strict=True):
            scale = np.ones(length, "float32")
            scale[0] = 1.5  # three cells, one of them padding
            scale[-1] *= 1.5 if size % 2 else 1.0
            scales.append(scale)
        return outputs * ops.convert_to_tensor(np.outer(*scales)[..., None], outputs.dtype)
