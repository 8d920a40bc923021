"""Activations that are products with a gate, and the gates: hard-swish, hard-sigmoid, sigmoid, SiLU, GELU, tanh.

Hard-swish is ``x * relu6(x + 3)``, six times too large; SiLU is ``x * sigmoid(x)``, two operations. GELU is computed as
``x * sigmoid(1.702 x)`` (Hendrycks and Gimpel, 2016, https://arxiv.org/abs/1606.08415), which is at most 0.0204 off: the
twin's tensor is 1.702 times x, so that GELU is SiLU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf
from keras import layers

from edgecls.graph import Op
from edgecls.quantize import exact, quantizers
from edgecls.quantize.registry import lowers, missing, plans
from edgecls.zoo import layers as zoo_layers

if TYPE_CHECKING:
    from edgecls.quantize.lower import Lowering
    from edgecls.quantize.plan import Plan, Value

Tensor = Any
Shape = tuple[int | None, ...]

RELU6_STEP = 6.0 / quantizers.STEPS  # of the gate in ScaledHardSwish
TABLES = {  # the grids on which TFLite wants the results: range, and the function
    "sigmoid": ((0.0, 255 / 256), tf.sigmoid),
    "tanh": ((-1.0, 127 / 128), tf.tanh),
}
SIGMOID_STEP = 1 / 256
GELU_SLOPE = 1.702
TERM_WIDTH = 0.02  # see rules.arithmetic
TOLERANCE = 1e-6  # of a slope that is written out

_serializable = keras.saving.register_keras_serializable(package="edgecls")


@lowers(layers.Multiply)
def _multiply(lowering: Lowering, layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    """A hard-swish where it is written out: a tensor times its hard-sigmoid."""
    for x, gate in (inputs, inputs[::-1]) if len(inputs) == 2 else ():
        maker = gate._keras_history.operation
        gated = isinstance(maker, zoo_layers.HardSigmoid) and maker.input is x
        if gated and abs(maker.slope * 6 - 1) < TOLERANCE and maker.offset == 0.5:
            return zoo_layers.HardSwish(name=lowering.name(layer.name))(x)
    return lowering.plain(layer, inputs)


@plans(zoo_layers.HardSwish)
def _hard_swish(plan: Plan, op: Op, values: list[Value]) -> Value:
    """Below -3 it is zero, so the grid of its input ends there: finer steps for what matters."""
    value = plan.plain(values[0])
    source = plan.on_grid(value, floor=-3.0 if value.users == 1 else None, width=TERM_WIDTH)
    node = plan.node(op.layer.name, ScaledHardSwish, [source], {})
    return plan.result(op, node, scale=6.0, linear=True)


@plans(zoo_layers.HardSigmoid)
def _hard_sigmoid(plan: Plan, op: Op, values: list[Value]) -> Value:
    """``relu6(6 * slope * x + 6 * offset)``, six times the gate; the linear part is in the layer before."""
    value = plan.rescaled(values[0], 6.0 * op.layer.slope, 6.0 * op.layer.offset)
    node = plan.node(op.layer.name, layers.ReLU, [plan.fused(value)], {"max_value": 6.0})
    return plan.result(op, node, scale=6.0)


@plans(layers.Activation)
def _activation(plan: Plan, op: Op, values: list[Value]) -> Value:
    """What ``rules.activations`` has left: a table, or a product with one."""
    kind = keras.activations.serialize(op.layer.activation)
    if kind == "sigmoid" and plan.users(op) == 1 and op.output in plan.graph.outputs:
        return plan.head(op, values[0])
    if kind in TABLES:
        node = plan.node(op.layer.name, Table, [plan.on_grid(plan.plain(values[0]))], {"function": kind})
        result = plan.result(op, node)
        plan.on_grid(result, fixed=TABLES[kind][0])
        return result
    if kind not in ("silu", "gelu"):
        raise missing(op.layer)
    scale = GELU_SLOPE if kind == "gelu" else 1.0
    source = plan.on_grid(plan.rescaled(values[0], scale))
    return plan.result(op, plan.node(op.layer.name, Swish, [source], {}), scale=scale, linear=True)


@_serializable
class ScaledHardSwish(exact.Exact, layers.Layer):
    """``x * relu6(x + 3)``: hard-swish times six, in a form that stays one delegate partition in int8.

    XNNPACK does not take an int8 HARD_SWISH, and the converter fuses the textbook form into one.
    """

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if self.counts(training):
            assert self.steps is not None
            source, target = self.steps
            x = exact.counted(inputs, source)
            three = tf.constant(float(quantizers.STEPS))  # in steps of its own grid, which ends there
            gate = exact.added(x, three, (source, 3.0 / quantizers.STEPS, RELU6_STEP))
            gate = exact.counted(tf.nn.relu6(gate), RELU6_STEP)
            return exact.requantized(x * gate, exact.product(source, RELU6_STEP), target)
        gate = tf.nn.relu6(inputs + 3.0)
        if self.enabled:
            rounded = quantizers.fixed(gate, 0.0, 6.0)
            gate = quantizers.with_gradient(gate, rounded) if training else rounded
        return inputs * gate

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def unit(self, steps: Sequence[float]) -> float:
        return steps[0] * RELU6_STEP


@_serializable
class Table(exact.Exact, layers.Layer):
    """A function of one value, which int8 kernels look up in a table of 256 entries.

    Args:
        function: ``sigmoid`` or ``tanh``.
    """

    def __init__(self, function: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if not self.counts(training):
            return TABLES[self.function][1](inputs)
        assert self.steps is not None
        return _looked_up(self.function, inputs, *self.steps)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "function": self.function}


@_serializable
class Swish(exact.Exact, layers.Layer):
    """``x * sigmoid(x)``, the sigmoid on the grid that TFLite wants."""

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if self.counts(training):
            assert self.steps is not None
            source, target = self.steps
            gate = _looked_up("sigmoid", inputs, source, SIGMOID_STEP)
            gate = exact.counted(tf.minimum(gate, TABLES["sigmoid"][0][1]), SIGMOID_STEP)
            product = exact.counted(inputs, source) * gate
            return exact.requantized(product, exact.product(source, SIGMOID_STEP), target)
        gate = tf.sigmoid(inputs)
        return inputs * (quantizers.fixed(gate, *TABLES["sigmoid"][0]) if self.enabled else gate)

    def unit(self, steps: Sequence[float]) -> float:
        return steps[0] * SIGMOID_STEP

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


def _looked_up(function: str, inputs: Tensor, source: float, target: float) -> Tensor:
    """``function`` of ``inputs`` on a grid of step ``source``, on the grid that TFLite wants, of step ``target``.

    XNNPACK fills its table in float64 and rounds a float32 to which the int8 that stands for zero is added already: a
    small result has fewer digits then, and what was just below a half can be a half.
    """
    (low, _), compute = TABLES[function]
    zero = -128 - low / target
    x = tf.cast(exact.counted(inputs, source) * source, tf.float64)
    values = tf.cast(compute(x), tf.float32)
    return (tf.round(values / target + zero) - zero) * target
