"""What a runtime executes for a Keras model: its operations as text, one text each.

``android_bench.predict.operations`` describes the text, and reads it. Batch normalization goes into the convolution
before it, a ReLU into the operation before it; element-wise steps in a row are one operation; padding, reshaping and
dropout are none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import layers, tree

from edgecls.zoo import build_model, cost
from edgecls.zoo.layers import Channels, ChannelShuffle, HardSigmoid, HardSwish, Normalize
from edgecls.zoo.pooling import EdgeMaxPooling2D
from edgecls.zoo.vit import Attention

Shape = tuple[int, ...]

_NOTHING = (
    layers.InputLayer, layers.Dropout, layers.ZeroPadding1D, layers.ZeroPadding2D, layers.Flatten, layers.Reshape,
    layers.Identity, layers.SpatialDropout2D,
)  # fmt: skip
_ELEMENTWISE = (
    layers.BatchNormalization, layers.Activation, layers.ReLU, layers.LeakyReLU, layers.Rescaling,
    layers.Normalization, HardSwish, HardSigmoid, Normalize,
)  # fmt: skip
_KINDS: dict[type, str] = {
    layers.Add: "add",
    layers.Subtract: "add",
    layers.Average: "add",
    layers.Multiply: "mul",
    layers.Concatenate: "concat",
    layers.GlobalAveragePooling2D: "mean",
    layers.GlobalMaxPooling2D: "mean",
    layers.Softmax: "softmax",
    layers.UpSampling2D: "resize",
    layers.Cropping1D: "move",
    layers.Cropping2D: "move",
    layers.Permute: "move",
    Channels: "move",
    ChannelShuffle: "move",
}
_TAKES_RELU = ("conv", "pointwise", "depthwise", "grouped", "dense", "add", "mul")
_OPS = {
    "Add": "add",
    "Subtract": "add",
    "Multiply": "mul",
    "Mean": "mean",
    "Transpose": "move",
    "GetItem": "move",
}
"""Bare operations, such as ``x + y``, by the names of their classes."""


def operations(model: keras.Model, names: Callable[[int], str] = str) -> list[str]:
    """The operations that a runtime executes for a functional model, in its order.

    Args:
        model: A float network. Branches that become one convolution should be fused (``edgecls.fuse``).
        names: How a size is written; the catalog writes the number of classes as ``N``.

    Example:
        >>> image = keras.Input((32, 32, 3))
        >>> operations(keras.Model(image, layers.ReLU()(layers.Conv2D(8, 3, 2, "same")(image))))
        ['conv3x3 32x32x3>16x16x8']
    """
    return [_text(step, names) for step in _steps(model) if step]


def _text(step: dict[str, Any], names: Callable[[int], str]) -> str:
    def shape(sides: Shape) -> str:
        return "x".join(map(names, sides)) or "1"

    return f"{step['kind']} {'+'.join(map(shape, step['inputs']))}>{shape(step['output'])}"


def _steps(model: keras.Model) -> list[dict[str, Any]]:
    flat = [op for op in _leaves(model) if not isinstance(op, layers.InputLayer)]
    users = Counter(id(t) for op in flat for t in tree.flatten(op.input))
    steps: list[dict[str, Any]] = []
    last: dict[
        int, dict[str, Any]
    ] = {}  # tensors to the step that made them, if nothing else was done to them
    shapes: dict[int, Shape] = {}  # of what padding made: the shape before it
    for op in flat:
        inputs, output = tree.flatten(op.input), tree.flatten(op.output)[0]
        before = last.get(id(inputs[0])) if len(inputs) == users[id(inputs[0])] == 1 else None
        seen = [shapes.get(id(t), tuple(t.shape[1:])) for t in inputs]
        if isinstance(op, _NOTHING):
            if isinstance(op, layers.ZeroPadding2D):
                shapes[id(output)] = seen[0]
            elif before:
                last[id(output)] = before
            continue
        if before and _joins(op, before):
            last[id(output)] = before
            continue
        made = [
            {"inputs": i, "output": o, "kind": k} for k, i, o in _parts(op, seen, tuple(output.shape[1:]))
        ]
        steps += made
        last[id(output)] = made[-1]
    return steps


def _joins(op: Any, step: dict[str, Any]) -> bool:
    """Whether an element-wise layer is computed with the step before it. It marks the step as taken by a ReLU."""
    kind = step["kind"].partition("/")[0].rstrip("0123456789x")
    if not isinstance(op, _ELEMENTWISE):
        return False
    if kind == "activation":
        return True
    if isinstance(op, layers.BatchNormalization):
        return kind in ("conv", "pointwise", "depthwise", "grouped", "dense") and not step.get("relu")
    if _is_relu(op) and kind in _TAKES_RELU and not step.get("relu"):
        step["relu"] = True
        return True
    return False


def _is_relu(op: Any) -> bool:
    if isinstance(op, layers.ReLU):
        return not op.negative_slope
    return isinstance(op, layers.Activation) and op.activation.__name__ in ("relu", "relu6", "linear")


def _parts(op: Any, inputs: list[Shape], output: Shape) -> Iterator[tuple[str, Sequence[Shape], Shape]]:
    """Kind with its kernel, inputs and output of each operation that a layer is."""
    if isinstance(op, layers.DepthwiseConv2D):
        yield f"depthwise{_window(op.kernel_size)}", inputs, output
    elif isinstance(op, layers.Conv2D):
        yield _convolution(op), inputs, output
    elif isinstance(op, layers.Dense):
        yield "dense", inputs, output
    elif isinstance(op, EdgeMaxPooling2D):
        yield from _edge_pool(inputs[0], output)
    elif isinstance(op, layers.AveragePooling2D | layers.MaxPooling2D):
        yield "pool", inputs, output
    elif isinstance(op, Attention):
        yield from _attention(op, inputs[0], output)
    elif isinstance(op, _ELEMENTWISE):
        yield "activation", inputs, output
    else:
        yield _KINDS.get(type(op)) or _OPS.get(type(op).__name__, "other"), inputs, output


def _window(sizes: Sequence[int]) -> str:
    return "" if tuple(sizes) == (1, 1) else "x".join(map(str, sizes))


def _convolution(op: layers.Conv2D) -> str:
    if op.groups > 1:
        return f"grouped{_window(op.kernel_size)}/{op.groups}"
    return "pointwise" if tuple(op.kernel_size) == (1, 1) else f"conv{_window(op.kernel_size)}"


def _edge_pool(shape: Shape, output: Shape) -> Iterator[tuple[str, Sequence[Shape], Shape]]:
    """Each axis is padded by copies of its edges, see ``EdgeMaxPooling2D``."""
    height, width, channels = shape
    for axis in (0, 1):
        edge = (1, width, channels) if axis == 0 else (height, 1, channels)
        odd = (height, width)[axis] % 2
        for _ in range(1 + odd):
            yield "move", [(height, width, channels)], edge
            height, width = (height + 1, width) if axis == 0 else (height, width + 1)
            grown = (height, width, channels)
            yield "concat", [edge, shape], grown
            shape = grown
    yield "pool", [shape], output


def _attention(op: Attention, shape: Shape, output: Shape) -> Iterator[tuple[str, Sequence[Shape], Shape]]:
    """Two products of matrices with a softmax between them."""
    (count, width), heads = output, op.heads
    scores = (heads, count, count)
    yield "move", [shape], shape
    yield "matmul", [(heads, count, width // heads), (heads, width // heads, count)], scores
    yield "softmax", [scores], scores
    yield "matmul", [scores, (heads, count, width // heads)], (heads, count, width // heads)
    yield "move", [output], output


def _leaves(model: keras.Model) -> list[Any]:
    """The layers in the order in which they are computed; those of nested models stand for their model."""
    found = []
    for op in model.operations:
        found += _leaves(op) if isinstance(op, keras.Model) else [op]
    return found


_CLASSES = 1009  # no layer of the zoo is as wide, so that this is the number of classes wherever it stands


def catalog_operations(name: str, fuse: Callable[[keras.Model], keras.Model] | None = None) -> str:
    """The text of a catalog network's operations, with ``N`` for the number of classes.

    Args:
        name: Catalog name.
        fuse: Makes each sum of branches one convolution, as export does; None: the network as it is trained.
    """
    with cost.without_values():
        model = build_model(name, _CLASSES)
        texts = operations(
            fuse(model) if fuse else model, lambda side: "N" if side == _CLASSES else str(side)
        )
    return ";".join(f"{count}*{text}" if count > 1 else text for text, count in Counter(texts).items())
