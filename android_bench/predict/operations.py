"""An operation of a network as a predictor sees it: its kind and its shapes, and what follows from them.

A network is a list of operations as a runtime executes them: batch normalization is folded into the convolution before
it, a ReLU is part of the operation before it, a chain of element-wise steps on one map (a hard-swish, for example) is
one operation, and padding and reshaping cost nothing. ``tflite.read_operations`` makes such a list from a file.

As text an operation is ``KIND[KERNEL][/GROUPS] INPUT[+INPUT]>OUTPUT``, for example ``conv3x3 224x224x3>112x112x16`` or
``add 56x56x24+56x56x24>56x56x24``. A list is joined by ``;``, and ``3*`` stands before one that occurs three times.
``N`` in a shape is the number of classes.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

Shape = tuple[int, ...]

CONVOLUTIONS = ("conv", "pointwise", "depthwise", "grouped", "dense")
"""Kinds that have weights."""
KINDS = (
    *CONVOLUTIONS, "pool", "mean", "add", "mul", "activation", "concat", "move", "resize", "matmul", "softmax", "other",
)  # fmt: skip
"""``pointwise`` is a 1x1 convolution, ``mean`` averages a whole map, ``move`` copies values to other places (a
transposition, a slice), ``other`` is anything else."""

_TEXT = re.compile(
    r"(?:(?P<count>\d+)\*)?(?P<kind>[a-z]+)(?:(?P<kernel>\d+x\d+))?(?:/(?P<groups>\d+))? (?P<inputs>\S+)>(?P<output>\S+)"
)


@dataclass(frozen=True)
class Operation:
    """One operation for one image.

    Attributes:
        kind: One of ``KINDS``.
        inputs: Shapes of the feature maps that it reads, without the batch: height, width, channels.
        output: Shape of the feature map that it writes.
        kernel: Height and width of the window of a convolution or a pool.
        groups: Groups of a grouped convolution's channels.

    Example:
        >>> stem = Operation("conv", ((224, 224, 3),), (112, 112, 16), (3, 3))
        >>> stem.macs, stem.weights, str(stem)
        (5419008, 448, 'conv3x3 224x224x3>112x112x16')
    """

    kind: str
    inputs: tuple[Shape, ...]
    output: Shape
    kernel: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def terms_of_a_sum(self) -> int:
        """How many products each value of the output is a sum of; 0 of an operation without products."""
        channels = self.inputs[0][-1] if self.inputs and self.inputs[0] else 1
        if self.kind == "depthwise":
            return math.prod(self.kernel)
        if self.kind in CONVOLUTIONS:
            return math.prod(self.kernel) * channels // self.groups
        return channels if self.kind == "matmul" else 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates, without those of a bias."""
        return math.prod(self.output) * self.terms_of_a_sum

    @property
    def weights(self) -> int:
        """Scalars of its kernel and bias."""
        return (self.terms_of_a_sum + 1) * self.output[-1] if self.kind in CONVOLUTIONS else 0

    @property
    def moved(self) -> int:
        """Values of feature maps that it reads and writes."""
        return sum(map(math.prod, self.inputs)) + math.prod(self.output)

    def __str__(self) -> str:
        window = "x".join(map(str, self.kernel)) if self.kernel != (1, 1) else ""
        groups = f"/{self.groups}" if self.groups != 1 else ""
        return f"{self.kind}{window}{groups} {'+'.join(map(_shape_text, self.inputs))}>{_shape_text(self.output)}"


def _shape_text(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "1"


def to_text(operations: Iterable[Operation]) -> str:
    """Operations as one line; their order is not kept.

    Example:
        >>> add = Operation("add", ((7, 7, 96), (7, 7, 96)), (7, 7, 96))
        >>> to_text([add, add])
        '2*add 7x7x96+7x7x96>7x7x96'
    """
    return join(map(str, operations))


def join(texts: Iterable[str]) -> str:
    """Texts of single operations as the text of a list."""
    counted = Counter(texts)
    return ";".join(f"{count}*{text}" if count > 1 else text for text, count in counted.items())


def parse(text: str, classes: int = 1000) -> list[Operation]:
    """Read what ``to_text`` wrote.

    Args:
        text: Operations, joined by ``;``.
        classes: What ``N`` in a shape stands for.

    Example:
        >>> [o.macs for o in parse("dense 1280>N", classes=10)]
        [12800]

    Raises:
        ValueError: It is no such text.
    """
    return [operation for part in text.split(";") if part for operation in _parse_one(part, classes)]


@functools.lru_cache(1 << 15)
def _parse_one(text: str, classes: int) -> tuple[Operation, ...]:
    found = _TEXT.fullmatch(text)
    if not found or found["kind"] not in KINDS:
        raise ValueError(f"not an operation: {text!r}")

    def shape(part: str) -> Shape:
        return tuple(classes if side == "N" else int(side) for side in part.split("x"))

    height, width = map(int, (found["kernel"] or "1x1").split("x"))
    inputs = tuple(shape(part) for part in found["inputs"].split("+"))
    operation = Operation(
        found["kind"], inputs, shape(found["output"]), (height, width), int(found["groups"] or 1)
    )
    return (operation,) * int(found["count"] or 1)


def rescale(operations: Sequence[Operation], old: int, new: int) -> list[Operation]:
    """The operations of the same network for images of another size.

    Maps of one position stay as they are. Others keep their share of the image's side, rounded up as strided
    convolutions do.

    Args:
        operations: Those of a convolutional network.
        old: Side of the image that they are for, pixels.
        new: Side of the image that is wanted, pixels.

    Example:
        >>> [str(o) for o in rescale(parse("depthwise3x3 14x14x96>7x7x96;mean 7x7x96>1x1x96"), 224, 160)]
        ['depthwise3x3 10x10x96>5x5x96', 'mean 5x5x96>1x1x96']

    Raises:
        ValueError: Some are not for maps of height and width, as in a transformer.
    """
    if old == new:
        return list(operations)
    if any(o.kind == "matmul" for o in operations):
        raise ValueError("not a convolutional network: what it costs at another size is not known")

    def scaled(shape: Shape) -> Shape:
        if len(shape) != 3:
            return shape
        sides = (side if side == 1 else max(1, math.ceil(side * new / old - 1e-9)) for side in shape[:2])
        return (*sides, shape[2])

    once = {id(o): o for o in operations}  # one object stands wherever the same operation does
    changed = {
        key: replace(o, inputs=tuple(map(scaled, o.inputs)), output=scaled(o.output))
        for key, o in once.items()
    }
    return [changed[id(o)] for o in operations]
