"""A Keras network that computes what an ONNX graph computes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from edgecls.errors import UsageError
from edgecls.text import first_line
from edgecls.weights.translate import graph as graphs
from edgecls.weights.translate import rules  # noqa: F401  # registers them
from edgecls.weights.translate.registry import RULES, Node
from edgecls.weights.translate.values import MAPS, Unsupported, Value, reshaped
from edgecls.zoo.layers import Normalize

CHANNEL_WISE = ("Transpose", "Identity", "Cast", "Pad")  # between the image and the first convolution
PER_CHANNEL = ("Add", "Sub", "Mul", "Div")


def translate(
    graph: graphs.Graph, mean: Sequence[float], std: Sequence[float], bgr: bool = False
) -> keras.Model:
    """Build the network.

    Args:
        graph: From ``graphs.read``.
        mean: Of pixel / 255, red first: the ONNX network takes ``(pixel / 255 - mean) / std``.
        std: The deviation, likewise.
        bgr: The ONNX network takes blue first. The Keras network takes red first in any case.

    Returns:
        From pixels 0 to 255 [batch, size, size, 3] to scores [batch, classes]. Its layers have the names of the nodes.

    Raises:
        UsageError: An operation has no layer, or the result is no vector of scores.
    """
    document = graph.document
    nodes = [node for node in document.graph.node if node.op_type != "Constant"]
    unknown = sorted({_kind(node) for node in nodes if _kind(node) not in RULES})
    if unknown:
        raise UsageError(
            f"no Keras layer for the ONNX operations {', '.join(unknown)}", where=str(graph.path)
        )
    arrays, shapes = graphs.constants(document.graph), graphs.shapes(document.graph)
    source = next(value.name for value in document.graph.input if value.name not in arrays)
    if bgr:
        _swap_colors(nodes, arrays, source, graph)
    image = keras.Input((graph.size, graph.size, graphs.COLORS), name="image")
    taken = Normalize(mean, std, name="normalize")(image)
    values = {source: Value(taken, tuple(range(4)) if graph.channels_last else MAPS)}
    opset = next((entry.version for entry in document.opset_import if entry.domain in ("", "ai.onnx")), 1)
    names = _Names()
    for node in nodes:
        made = Node(
            node.op_type,
            names.free(node.name or node.output[0]),
            [values.get(name, arrays.get(name)) for name in node.input],
            graphs.attributes(node),
            [shapes.get(name) for name in node.output if name],
            opset,
        )
        try:
            results = RULES[node.op_type](made)
        except Unsupported as error:
            raise UsageError(
                f"no Keras layer for {node.op_type} with {error}",
                where=f"{graph.path}: {node.name or made.name}",
            ) from None
        except (
            ValueError,
            TypeError,
            LookupError,
        ) as error:  # Keras', of an operation that its layer cannot have
            raise UsageError(
                f"cannot translate {node.op_type}: {first_line(error)}",
                where=f"{graph.path}: {node.name or made.name}",
            ) from error
        outputs = results if isinstance(results, list) else [results]
        values |= dict(zip(node.output, outputs, strict=False))
    scores = values.get(document.graph.output[0].name)
    if scores is None:
        raise UsageError("its scores do not depend on the image", where=str(graph.path))
    classes = math.prod(scores.shape)
    if max(scores.shape) != classes:
        raise UsageError(
            f"not a classifier: it gives {' x '.join(map(str, scores.shape))} values", where=str(graph.path)
        )
    scores = reshaped(scores, [1, classes], "scores.shape")
    return keras.Model(image, scores.tensor, name=names.clean(graph.path.stem))


def _kind(node: Any) -> str:
    """The operator's name; that of another vendor with its domain."""
    return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type


def _swap_colors(nodes: list[Any], arrays: dict[str, np.ndarray], source: str, graph: graphs.Graph) -> None:
    """Change constants so that the network takes red first: the kernels of the first convolutions, and what is per
    channel before them.
    """
    swapped, constants = (
        {source},
        dict[str, int](),
    )  # a constant, which several nodes may read: its axis of colors
    for node in nodes:
        if not swapped & set(node.input):
            continue
        constant = next((name for name in node.input if name in arrays), "")
        if node.op_type == "Conv" and constant:
            constants[constant] = 1
        elif node.op_type in CHANNEL_WISE or (node.op_type in PER_CHANNEL and constant):
            swapped.add(node.output[0])
            sizes = arrays[constant].shape if node.op_type in PER_CHANNEL else ()
            if graphs.COLORS in sizes:
                constants[constant] = sizes.index(graphs.COLORS)
        else:
            raise UsageError(
                f"its colors cannot be swapped: {node.op_type} comes before the first convolution",
                where=f"{graph.path}: {node.name}",
            )
    arrays |= {name: np.flip(arrays[name], axis) for name, axis in constants.items()}


class _Names:
    """Names of layers: those of the nodes, with the signs that Keras allows, each once."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {"image": 1, "normalize": 1}

    def clean(self, name: str) -> str:
        """``name`` with dots for slashes."""
        return re.sub(r"[^A-Za-z0-9_.-]", "_", name.replace("/", ".")).strip("._") or "layer"

    def free(self, wish: str) -> str:
        """The name, or with a number behind it where it is taken."""
        name = self.clean(wish)
        count = self._taken[name] = self._taken.get(name, 0) + 1
        return name if count == 1 else self.free(f"{name}_{count}")
