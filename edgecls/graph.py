"""A functional model as a list of operations in order: all that a rewrite needs to know of Keras' graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras

from edgecls.errors import UsageError

Ref = tuple[str, int, int]  # layer name, which of its calls, which of that call's outputs


@dataclass(frozen=True)
class Op:
    """One call of one layer.

    Args:
        layer: The layer of the original model, or a bare operation.
        call: Which of its calls this is.
        inputs: The tensors it takes, in order.
    """

    layer: keras.Layer
    call: int
    inputs: tuple[Ref, ...]

    @property
    def output(self) -> Ref:
        return (self.layer.name, self.call, 0)


@dataclass(frozen=True)
class Graph:
    """A model's operations in an order in which they can be computed, and its outputs."""

    ops: tuple[Op, ...]
    outputs: tuple[Ref, ...]

    def consumers(self, ref: Ref) -> list[Op]:
        """The operations that take ``ref``; a model's output counts for none."""
        return [op for op in self.ops if ref in op.inputs]

    @cached_property
    def makers(self) -> dict[Ref, Op]:
        """The operation that makes each tensor."""
        return {op.output: op for op in self.ops}

    @cached_property
    def users(self) -> Counter[Ref]:
        """How many operations take each tensor; being a model's output counts, too."""
        return Counter([*(ref for op in self.ops for ref in op.inputs), *self.outputs])

    @cached_property
    def calls(self) -> Counter[str]:
        """How often each layer is called."""
        return Counter(op.layer.name for op in self.ops)


def trace(model: keras.Model) -> Graph:
    """Read the graph of a functional ``model`` from its configuration.

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
    return Graph(tuple(_ordered(ops)), tuple(_ends(config["output_layers"])))


def rebuild(model: keras.Model, change: Callable[[Any, Any], Any]) -> keras.Model:
    """Copy a functional model, but for some calls of layers.

    Args:
        model: Stays as it is.
        change: Takes a layer of the copy, which has no weights yet, and the first argument it is called with. Returns
            what stands for the result, or None where the layer is called as before.

    Returns:
        The copy. It has layers of its own, of the same names and weights, and lacks those that nothing needs any more.
    """
    twins: list[tuple[Any, Any]] = []

    def twin(layer: Any) -> Any:
        twins.append((layer, type(layer).from_config(layer.get_config())))
        return twins[-1][1]

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        result = change(layer, next(iter((*args, *kwargs.values())), None))
        return layer(*args, **kwargs) if result is None else result

    copy = keras.models.clone_model(model, clone_function=twin, call_function=call)
    for old, new in twins:
        for source, target in zip(
            _variables(old), _variables(new), strict=False
        ):  # none if it was never called
            target.assign(source.value)
    return copy


def _variables(layer: Any) -> list[Any]:
    return getattr(layer, "variables", [])  # bare operations have no such thing


def _refs(value: Any) -> Iterator[Ref]:
    """The tensors in the serialized arguments of a call."""
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        name, call, index = value["config"]["keras_history"]
        yield name, call, index
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _refs(item)


def _ends(value: Any) -> Iterator[Ref]:
    """The tensors in the serialized outputs of a model: one, or any nest of lists and dictionaries."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value[0], str):
        name, call, index = value
        yield name, call, index
    else:
        for item in value:
            yield from _ends(item)


def _ordered(ops: list[Op]) -> Iterator[Op]:
    """The operations, each after those it takes tensors from."""
    done: set[tuple[str, int]] = set()
    while ops:
        ready = [op for op in ops if all(ref[:2] in done for ref in op.inputs)]
        if not ready:
            raise UsageError("the model's graph has a circle")
        yield from ready
        done.update((op.layer.name, op.call) for op in ready)
        ops = [op for op in ops if op not in ready]
