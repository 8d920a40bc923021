"""The operations of ONNX as layers of Keras: a function each, in a file of ``rules/`` for each kind.

``@translates("Relu")`` registers a function that takes a ``Node`` and returns the ``Value`` of its output, or a list of
them. It prefers layers that ``edgecls.quantize`` has rules for. What has no layer raises ``Unsupported``. See
https://onnx.ai/onnx/operators for what each operation computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecls.weights.translate.values import Unsupported, Value

Operand = Value | np.ndarray | None


@dataclass(frozen=True)
class Node:
    """An operation of the graph.

    Attributes:
        kind: Its operator.
        name: Of its layer.
        inputs: Tensors and constants; None where an input is left out.
        attributes: By name.
        shapes: Of its outputs, the batch as 1; None where it is not known.
        opset: The version of ONNX' operators.
    """

    kind: str
    name: str
    inputs: Sequence[Operand]
    attributes: dict[str, Any]
    shapes: Sequence[list[int] | None]
    opset: int

    def value(self, index: int = 0) -> Value:
        """An input that must be a tensor of the network."""
        value = self.inputs[index]
        if not isinstance(value, Value):
            raise Unsupported("a constant for the tensor it works on")
        return value

    def array(self, index: int) -> np.ndarray:
        """An input that must be a constant."""
        array = self.inputs[index]
        if not isinstance(array, np.ndarray):
            raise Unsupported(f"input {index}, its {self.kind} parameter, that is computed")
        return array

    def setting(self, name: str, index: int | None = None, default: Any = None) -> Any:
        """An attribute, or the constant input that newer opsets have in its place."""
        if name in self.attributes:
            return self.attributes[name]
        if index is None or index >= len(self.inputs) or self.inputs[index] is None:
            return default
        array = self.array(index)
        return array.tolist() if array.ndim else array.item()

    def part(self, name: str) -> str:
        """The name of a layer that is a part of this operation."""
        return f"{self.name}.{name}"

    @property
    def shape(self) -> list[int]:
        """Of its first output."""
        if self.shapes[0] is None:
            raise Unsupported("a shape that depends on the pixels")
        return self.shapes[0]


Rule = Callable[[Node], Value | list[Value]]
RULES: dict[str, Rule] = {}


def translates(*kinds: str) -> Callable[[Rule], Rule]:
    """Register the function for operators of these names."""

    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, rule))
        return rule

    return register
