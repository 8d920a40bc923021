"""The graph of a functional Keras model, as a list of operations in order, and copies of a model with changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras

from edgecls.errors import UsageError
from edgecls.text import first_line

Ref = tuple[str, int, int]  # layer name, which of its calls, which of that call's outputs


@dataclass(frozen=True)
class Op:
    """One call of one layer.

    Args:
        layer: The layer of the original model, or a bare operation.
        call: Which of its calls this is.
        inputs: The tensors that it takes, in order.
    """

    layer: keras.Layer
    call: int
    inputs: tuple[Ref, ...]

    @property
    def output(self) -> Ref:
        return (self.layer.name, self.call, 0)


@dataclass(frozen=True)
class Graph:
    """The operations of a model, in an order in which they can be computed, and the model's outputs."""

    ops: tuple[Op, ...]
    outputs: tuple[Ref, ...]

    def consumers(self, ref: Ref) -> list[Op]:
        """The operations that take ``ref``. Being an output of the model does not count."""
        return [op for op in self.ops if ref in op.inputs]

    @cached_property
    def makers(self) -> dict[Ref, Op]:
        """The operation that makes each tensor."""
        return {op.output: op for op in self.ops}

    @cached_property
    def users(self) -> Counter[Ref]:
        """How many operations take each tensor. Being an output of the model counts as one more."""
        return Counter([*(ref for op in self.ops for ref in op.inputs), *self.outputs])

    @cached_property
    def calls(self) -> Counter[str]:
        """The number of calls of each layer."""
        return Counter(op.layer.name for op in self.ops)


def trace(model: keras.Model) -> Graph:
    """Read the graph of a functional ``model`` from its configuration.

    Example:
        >>> image = keras.Input((4,), name="image")
        >>> [op.layer.name for op in trace(keras.Model(image, keras.layers.Dense(2, name="fc")(image))).ops]
        ['image', 'fc']

    Raises:
        UsageError: The model is not functional.
    """
    if not isinstance(model, keras.models.Model) or not hasattr(model, "operations"):
        raise UsageError("not a functional Keras model", where=getattr(model, "name", str(model)))
    found = {op.name: op for op in model.operations}
    config = model.get_config()
    ops = []
    for entry in config["layers"]:
        calls = entry["inbound_nodes"] or [{"args": [], "kwargs": {}}]
        ops += [Op(found[entry["name"]], i, tuple(_refs(call))) for i, call in enumerate(calls)]
    return Graph(tuple(_ordered(ops)), tuple(_output_refs(config["output_layers"])))


def remade(layer: Any, **changes: Any) -> Any:
    """A layer like another, without its weights.

    A ``Lambda`` keeps its function, because its configuration has the code alone and not what the code refers to.

    Args:
        layer: A layer.
        changes: Keys of its configuration that are others.

    Raises:
        UsageError: It cannot be made from its configuration.
    """
    if isinstance(layer, keras.layers.Lambda):
        keys = {"name": layer.name, "dtype": layer.dtype_policy} | changes
        kept = {key: keys[key] for key in ("name", "dtype")}
        return type(layer)(layer.function, layer._output_shape, layer.mask, layer.arguments, **kept)
    try:
        return type(layer).from_config(layer.get_config() | changes)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise UsageError(
            f"{type(layer).__name__} cannot be made again from its configuration: {first_line(error)}",
            where=layer.name,
            fix="give it a get_config, and an __init__ that hands **kwargs to the parent's",
        ) from error


def rebuild(model: keras.Model, change: Callable[[Any, Any], Any]) -> keras.Model:
    """Copy a functional model and replace some of its layers' calls.

    Args:
        model: The model to copy. It is not changed.
        change: A function that is called for every call of a layer, in order. It takes the copy's layer, which has no
            weights yet, and the first argument of the call. It returns the tensor that replaces the result, or None
            to call the layer as before.

    Returns:
        The copy. Its layers are new; they have the same names and the same weights. Layers whose results are no longer
        used are not in it.

    Example:
        >>> image = keras.Input((4,))
        >>> model = keras.Model(image, keras.layers.Dropout(0.5)(keras.layers.Dense(2)(image)))
        >>> plain = rebuild(model, lambda layer, x: x if isinstance(layer, keras.layers.Dropout) else None)
        >>> [type(layer).__name__ for layer in plain.layers]
        ['InputLayer', 'Dense']
    """
    twins: list[tuple[Any, Any]] = []

    def twin(layer: Any) -> Any:
        twins.append((layer, remade(layer)))
        return twins[-1][1]

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        result = change(layer, next(iter((*args, *kwargs.values())), None))
        return layer(*args, **kwargs) if result is None else result

    copy = keras.models.clone_model(model, clone_function=twin, call_function=call)
    for old, new in twins:
        # A layer of the copy that was never called has no variables.
        for source, target in zip(_variables(old), _variables(new), strict=False):
            target.assign(source.value)
    return copy


def _variables(layer: Any) -> list[Any]:
    return getattr(layer, "variables", [])  # a bare operation, such as ops.add, has no variables


def _refs(value: Any) -> Iterator[Ref]:
    """The tensors in the serialized arguments of a call."""
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        name, call, index = value["config"]["keras_history"]
        yield name, call, index
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _refs(item)


def _output_refs(value: Any) -> Iterator[Ref]:
    """The tensors in the serialized outputs of a model: one tensor, or nested lists and dictionaries of tensors."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value[0], str):
        name, call, index = value
        yield name, call, index
    else:
        for item in value:
            yield from _output_refs(item)


def _ordered(ops: list[Op]) -> list[Op]:
    """The operations, each after those that make its inputs: by the length of the longest path from an input."""
    depths: dict[tuple[str, int], int] = {}
    waiting = ops
    while waiting:
        still = []
        for op in waiting:
            inputs = [depths.get(ref[:2]) for ref in op.inputs]
            if None in inputs:
                still.append(op)
            else:
                depths[op.layer.name, op.call] = 1 + max((d for d in inputs if d is not None), default=0)
        if len(still) == len(waiting):
            raise UsageError("the model's graph has a circle")
        waiting = still
    return sorted(ops, key=lambda op: depths[op.layer.name, op.call])
