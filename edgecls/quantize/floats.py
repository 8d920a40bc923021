"""Layers that stay in float in the middle of an int8 network.

Left to itself, TFLite's converter quantizes a float operation that it finds between two grids. So in the twin a layer of
class ``Boundary`` stands where values leave the grids and where they come back. It computes nothing. For the conversion
alone (``marked``) it becomes two operations that the converter neither quantizes nor removes; ``export.marks`` takes
them out of the file again. What is left is DEQUANTIZE, the float operations, QUANTIZE, all of which XNNPACK runs.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf
from keras import layers

from edgecls.errors import UsageError
from edgecls.graph import Graph, Op, trace
from edgecls.quantize.rules import dropped
from edgecls.quantize.rules.norm import FreezableBatchNormalization
from edgecls.zoo import layers as zoo_layers
from edgecls.zoo import vit

if TYPE_CHECKING:
    from edgecls.quantize.plan import Node, Plan, Value

# What the float operation before takes over, as an int8 operation would.
FOLLOWERS = (
    layers.BatchNormalization,
    layers.ReLU,
    layers.LeakyReLU,
    layers.Activation,
    zoo_layers.HardSwish,
    zoo_layers.HardSigmoid,
)
NORMS = (
    layers.LayerNormalization,
    layers.RMSNormalization,
    layers.GroupNormalization,
    layers.UnitNormalization,
)
REASONS = {  # why layers stay in float that nobody asked to keep
    **dict.fromkeys(NORMS, "int8 kernels have no square root"),
    layers.Softmax: "int8 kernels have no softmax",
    layers.Add: "a normalization reads it in float",
    vit.Tokens: "learned tokens and positions join the patches in it once",
}
NORMALIZATIONS = (zoo_layers.Normalize, layers.Rescaling, layers.Normalization)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the shell patterns fits a layer's name."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def can_stay(layer: Any, before: Any) -> bool:
    """Whether a layer can be kept in float.

    The normalization of the pixels cannot, because they are on a grid already; what only acts in training is left out.

    Args:
        layer: The layer.
        before: The layer that makes its input.
    """
    first = isinstance(before, layers.InputLayer)
    return not (first and isinstance(layer, NORMALIZATIONS)) and not isinstance(layer, dropped.CLASSES)


def kept_names(
    model: keras.Model, graph: Graph, kept: Collection[str], patterns: Collection[str]
) -> frozenset[str]:
    """Names of the layers of a lowered network that stay in float.

    Args:
        model: As the user has it.
        graph: Of the lowered network.
        kept: Names of its layers that ``lower`` has left as they are.
        patterns: Shell patterns of names.

    Raises:
        UsageError: A pattern fits no layer.
    """
    names = {layer.name for layer in model._flatten_layers()} | {op.layer.name for op in graph.ops}
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            near = difflib.get_close_matches(pattern, names, n=1)
            hint = f"did you mean {near[0]}?" if near else "--explain lists the names"
            raise UsageError(f"keep_float: no layer is called {pattern}", where=model.name, fix=hint)
    inner = [op for op in graph.ops if op.inputs and matches(op.layer.name, patterns)]
    found = {op.layer.name for op in inner if can_stay(op.layer, graph.makers[op.inputs[0]].layer)}
    return frozenset(found.union(kept))


def stays(plan: Plan, op: Op, values: list[Value]) -> bool:
    """Whether ``op`` is computed in float: it was asked for, or it belongs to the float operation before."""
    if op.layer.name in plan.kept:
        return True
    follows = isinstance(op.layer, FOLLOWERS) and len(values) == 1
    return follows and values[0].as_float and values[0].users == 1


def keep(plan: Plan, op: Op, values: list[Value]) -> Value:
    """``op`` as it is, in float. Its output is put on a grid if an int8 operation takes it."""
    inputs = [value.node if value.as_float else _leave(plan, op, value) for value in values]
    norm = isinstance(op.layer, layers.BatchNormalization)
    node = plan.add(op, FreezableBatchNormalization if norm else type(op.layer), inputs)
    node.in_float = True
    reason = REASONS.get(type(op.layer), "with the operation before it")
    plan.notes[node.name] = f"in float, {'as asked' if op.layer.name in plan.kept else reason}"
    return plan.result(op, node)


def read_in_float(plan: Plan, op: Op) -> bool:
    """Whether a normalization that stays in float reads the output of ``op``."""
    return any(isinstance(user.layer, NORMS) for user in plan.graph.consumers(op.output))


def _leave(plan: Plan, op: Op, value: Value) -> Node:
    source = plan.on_grid(plan.plain(value))
    node = plan.node(plan.free_name(f"{op.layer.name}.enter"), Boundary, [source], {})
    node.in_float = True
    return node


@keras.saving.register_keras_serializable(package="edgecls")
class Call(layers.Layer):
    """A call with several arguments, or of a bare operation, as a layer that takes its tensors alone.

    Args:
        operation: A layer or a bare operation.
        arguments: ``[args, kwargs]`` of the call, with ``TENSOR`` in place of each tensor.
        index: Which of the results it gives.

    Example:
        >>> image = keras.Input((4, 4, 3))
        >>> Call(keras.layers.Multiply(), [[[Call.TENSOR, Call.TENSOR]], {}])([image, image]).shape
        (None, 4, 4, 3)
    """

    TENSOR = "<tensor>"

    def __init__(self, operation: Any, arguments: Sequence[Any], index: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(operation, dict):  # of a file
            operation, arguments = map(keras.saving.deserialize_keras_object, (operation, arguments))
        self.operation, self.arguments, self.index = operation, arguments, index

    @classmethod
    def without_tensors(cls, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """``arguments`` of a call."""
        return keras.tree.map_structure(
            lambda x: cls.TENSOR if isinstance(x, keras.KerasTensor) else x, [list(args), dict(kwargs)]
        )

    def call(self, inputs: Any) -> Any:
        tensors = iter(keras.tree.flatten(inputs))
        args, kwargs = keras.tree.map_structure(
            lambda x: next(tensors) if isinstance(x, str) and x == self.TENSOR else x, self.arguments
        )
        return keras.tree.flatten(self.operation(*args, **kwargs))[self.index]

    def get_config(self) -> dict[str, Any]:
        serialized = keras.saving.serialize_keras_object
        parts = {"operation": serialized(self.operation), "arguments": serialized(self.arguments)}
        return {**super().get_config(), **parts, "index": self.index}


@keras.saving.register_keras_serializable(package="edgecls")
class Boundary(layers.Layer):
    """Passes its input on. Between it and the next one the file computes in float.

    Attributes:
        marking: For the conversion: be an operation that the converter leaves alone.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.marking = False

    def call(self, inputs: Any) -> Any:
        return tf.math.ceil(tf.math.floor(inputs)) if self.marking else inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


def boundaries(model: keras.Model) -> list[Boundary]:
    """The layers of ``model`` at which int8 begins or ends."""
    return [layer for layer in model.layers if isinstance(layer, Boundary)]


def returns(model: keras.Model) -> int:
    """How many tensors of ``model`` come back from float to a grid. The file has a QUANTIZE for each."""
    floating = in_float(model)
    graph = trace(model)
    ends = [op for op in graph.ops if isinstance(op.layer, Boundary)]
    return len({op.inputs[0] for op in ends if graph.makers[op.inputs[0]].layer.name in floating})


def in_float(model: keras.Model) -> dict[str, str]:
    """The layers of the twin ``model`` that compute in float between two grids, with their class and why.

    Example:
        >>> image = keras.Input((8, 8, 3))
        >>> x = layers.LayerNormalization(name="norm")(layers.Conv2D(4, 3)(image))
        >>> twin = edgecls.quantize_model(keras.Model(image, layers.Conv2D(2, 6)(x)))
        >>> in_float(twin)
        {'norm': 'LayerNormalization, int8 kernels have no square root'}
    """
    graph, inside, found = trace(model), set(), dict[str, str]()
    for op in graph.ops:
        entered = any(ref in inside for ref in op.inputs)
        if isinstance(op.layer, Boundary):
            inside |= set() if entered else {op.output}
        elif entered:
            inside.add(op.output)
            reason = REASONS.get(type(op.layer), "asked for, or behind such a layer")
            found[op.layer.name] = f"{type(op.layer).__name__}, {reason}"
    return found


@contextmanager
def marked(model: keras.Model) -> Iterator[None]:
    """Within the block, boundaries are visible to the converter."""
    try:
        for layer in boundaries(model):
            layer.marking = True
        yield
    finally:
        for layer in boundaries(model):
            layer.marking = False
