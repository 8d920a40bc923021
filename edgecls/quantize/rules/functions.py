"""Python functions of the user inside a model: ``Lambda`` layers, and activations that are no names.

One that is made of ``keras.ops`` and operators is a small model of bare operations, each of which has a rule or not. One
that calls TensorFlow itself cannot be read. Beside them, the activations of Keras that are computed in float.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
from keras import layers

from edgecls.graph import Op
from edgecls.quantize import floats
from edgecls.quantize.registry import lowers, missing, plans

if TYPE_CHECKING:
    from edgecls.quantize.lower import Lowering
    from edgecls.quantize.plan import Plan, Value

Tensor = Any

# Activations of Keras that XNNPACK computes in float, in the partition of what is around them.
FUNCTIONS = ("exponential", "log_sigmoid", "mish", "softplus", "softsign", "squareplus", "tanh_shrink")


@lowers(layers.Lambda)
def _lambda(lowering: Lowering, layer: Any, inputs: Tensor) -> Any:
    model = traced(layer.function, inputs, layer.name, **layer.arguments)
    if model is None:
        raise missing(layer, "a Lambda whose function is not made of keras.ops alone")
    return lowering.inline(model, inputs)


def traced(function: Callable[..., Any], inputs: Tensor, name: str, **arguments: Any) -> Any:
    """The operations of a function, as a model; None if they cannot be read.

    Args:
        function: Takes a tensor like ``inputs`` or a list of such, and ``arguments``.
        inputs: A tensor of a network, or several.
        name: In front of the operations' names.

    Example:
        >>> [op.name for op in traced(lambda x: 2 * x + 1, keras.Input((8, 8, 3)), "line").operations[1:]]
        ['line.multiply', 'line.add']
    """
    tensors = keras.tree.map_structure(lambda x: keras.Input(x.shape[1:], dtype=x.dtype), inputs)
    try:
        model = keras.Model(tensors, function(tensors, **arguments))
    except Exception:  # whatever the function raises that was not made for symbolic tensors
        return None
    for operation in model.operations:
        if not isinstance(operation, keras.Layer):
            operation.name = f"{name}.{type(operation).__name__.lower()}"
    return model


@keras.saving.register_keras_serializable(package="edgecls")
class InFloat(layers.Layer):
    """An activation that has no int8 kernel, in float between two grids.

    Args:
        function: One of ``FUNCTIONS``.
    """

    def __init__(self, function: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function

    def call(self, inputs: Tensor) -> Tensor:
        return getattr(keras.activations, self.function)(inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "function": self.function}


def in_float(function: str, name: str) -> InFloat:
    """The layer of one of ``FUNCTIONS``."""
    return InFloat(function, name=name)


floats.REASONS[InFloat] = "int8 kernels have no such function"


@plans(InFloat)
def _plan(plan: Plan, op: Op, values: list[Value]) -> Value:
    return floats.keep(plan, op, values)
