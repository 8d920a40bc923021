"""Batch normalization: it is folded into the kernel before it when training has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf
from keras import layers

from edgecls.errors import UsageError
from edgecls.graph import Op
from edgecls.quantize import layers as ql
from edgecls.quantize.registry import plans
from edgecls.zoo import layers as zoo_layers

if TYPE_CHECKING:
    from edgecls.quantize.plan import Plan, Value

Tensor = Any

_serializable = keras.saving.register_keras_serializable(package="edgecls")


@plans(layers.BatchNormalization, zoo_layers.BatchNormalization)
def _batch_norm(plan: Plan, op: Op, values: list[Value]) -> Value:
    """If there is no kernel before it, one that changes nothing is added."""
    if op.layer.axis not in (-1, op.layer.input_spec.ndim - 1):
        raise UsageError(
            f"batch normalization on axis {op.layer.axis}, which is not that of the channels",
            where=op.layer.name,
            fix="normalize the last axis (axis=-1)",
        )
    value = plan.plain(values[0])
    kernel = issubclass(value.node.kind, ql.QuantizedKernel | ql.ConstantConv2D)
    if not (kernel and getattr(value.node.kind, "takes_norm", True) and plan.fusible(value)):
        value = plan.affine(value, 1.0, 0.0, f"{op.layer.name}.identity", 1.0)
    node = plan.add(op, FreezableBatchNormalization, [value.node])
    node.name = plan.free_name(node.name) if op.call else node.name
    return plan.result(op, node, linear=True, maker=node)


@_serializable
class FreezableBatchNormalization(zoo_layers.BatchNormalization):
    """Batch normalization that can use its running statistics in training, while gamma and beta still learn.

    Args:
        output_scale: Constant factor of the output.
        folded: ``finalize`` has put it into the layer before it, so it passes its input on.
    """

    def __init__(self, *args: Any, output_scale: float = 1.0, folded: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.output_scale, self.folded = output_scale, folded
        self.frozen = False

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None) -> Tensor:
        if self.folded:
            return inputs
        training = bool(training) and not self.frozen
        if training or self.output_scale == 1.0:
            outputs = super().call(inputs, training=training, mask=mask)
            return outputs if self.output_scale == 1.0 else outputs * self.output_scale
        # One factor and one offset: the converter does not fold a second factor.
        gain = tf.math.rsqrt(tf.convert_to_tensor(self.moving_variance) + self.epsilon) * self.output_scale
        if self.scale:
            gain *= tf.convert_to_tensor(self.gamma)
        offset = -tf.convert_to_tensor(self.moving_mean) * gain
        if self.center:
            offset += tf.convert_to_tensor(self.beta) * self.output_scale
        return inputs * gain + offset

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "output_scale": self.output_scale, "folded": self.folded}
