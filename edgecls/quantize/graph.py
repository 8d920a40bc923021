"""A functional model as a list of operations in order: all that a rewrite needs to know of Keras' graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras

from edgecls.errors import UsageError

Ref = tuple[str, int, int]  # layer name, which of its calls, which of that call's outputs


@dataclass(frozen=True)
class Op:
    """One call of one layer.

    Args:
        layer: The layer of the original model.
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


def trace(model: keras.Model) -> Graph:
    """Read the graph of a functional ``model`` from its configuration.

    Raises:
        UsageError: The model is not functional or holds bare operations in place of layers.
    """
    if not isinstance(model, keras.models.Model) or not hasattr(model, "operations"):
        raise UsageError("not a functional Keras model", where=getattr(model, "name", str(model)))
    found = {layer.name: layer for layer in model.layers}
    config = model.get_config()
    ops = []
    for entry in config["layers"]:
        name = entry["name"]
        if name not in found:
            raise UsageError(
                f"a bare operation of class {entry['class_name']}",
                where=name,
                fix="use the Keras layer for it",
            )
        calls = entry["inbound_nodes"] or [{"args": [], "kwargs": {}}]
        ops += [Op(found[name], i, tuple(_refs(call))) for i, call in enumerate(calls)]
    outputs = config["output_layers"]
    flat = [outputs] if isinstance(outputs[0], str) else outputs
    return Graph(tuple(_ordered(ops)), tuple((name, call, index) for name, call, index in flat))


def _refs(value: Any) -> Iterator[Ref]:
    """The tensors in the serialised arguments of a call."""
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        name, call, index = value["config"]["keras_history"]
        yield name, call, index
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _refs(item)


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
