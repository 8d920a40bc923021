"""Find which array of an exported program is which array of a network, by the structure of the graph.

An exported program calls its arrays ``conv2d_17.w_0`` or worse, so names do not tell. Order does not tell, either: the
two convolutions before a ResNet's first addition have equal shapes, and every exporter lists them in its own order. So
arrays are matched by what leads to them and what follows them. What is not unique is not matched at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

HORIZON = 8  # how many following operations tell two equal ones apart


# Where a value comes from: the nodes that lead to it, directly or through operations without arrays. Each is a position
# in the list of nodes and a path: at every concatenation on the way, which of its inputs the value came through.
Origin = frozenset[tuple[int, tuple[int, ...]]]


@dataclass
class Op:
    """One operation of a program.

    Args:
        inputs: Names of the values that it reads, without arrays.
        outputs: Names of the values that it makes.
        arrays: Part of the state (``weight``, ``bias``, ``_mean``, ``_variance``) to the array's name in the file.
        factor: What it multiplies its input by, as a dropout may do at inference.
        joins: Whether it concatenates its inputs, so that their order matters.
        linear: Whether a positive factor on its input is the same factor on its output, as for reshapes and pools.
    """

    inputs: Sequence[str]
    outputs: Sequence[str]
    arrays: dict[str, str] = field(default_factory=dict)
    factor: float = 1.0
    linear: bool = False
    joins: bool = False


@dataclass
class Node:
    """An operation with arrays, and its place in the graph.

    Args:
        shapes: Part of the state to its shape in PaddlePaddle's layout.
        before: Where its inputs come from.
        arrays: Part of the state to the array's name.
        factor: What its input was multiplied by since the node before.
    """

    shapes: dict[str, tuple[int, ...]]
    before: Origin
    arrays: dict[str, str]
    factor: float = 1.0


def origin(before: Sequence[Origin], joins: bool) -> Origin:
    """Where the result of an operation comes from, given where its inputs come from."""
    parts = ((part,) if joins else () for part in range(len(before)))
    pairs = zip(before, parts, strict=True)
    return Origin((node, path + part) for nodes_, part in pairs for node, path in nodes_)


def nodes(ops: Iterable[Op], arrays: dict[str, np.ndarray]) -> list[Node]:
    """The nodes of a program, in order of execution.

    A bias that is added to a kernel's result belongs to the kernel's node.
    """
    found: list[Node] = []
    origins: dict[str, tuple[Origin, float]] = {}  # value: where it comes from, and the factor on it
    direct: dict[str, Node] = {}  # value: the node with a kernel whose result it is
    for op in ops:
        inputs = [origins[name] for name in op.inputs if name in origins]
        before = origin([where for where, _ in inputs], op.joins)
        factor = inputs[0][1] if inputs else 1.0  # of a reshape, the features are the first input
        shapes = {part: arrays[name].shape for part, name in op.arrays.items()}
        if list(shapes) == ["bias"] and len(op.inputs) == 1 and (kernel := direct.get(op.inputs[0])):
            kernel.arrays |= op.arrays
            kernel.shapes |= shapes
        elif shapes:
            node = Node(shapes, before, dict(op.arrays), factor)
            before, factor = Origin({(len(found), ())}), 1.0
            found.append(node)
            if list(shapes) == ["weight"]:
                direct |= dict.fromkeys(op.outputs, node)
        origins |= dict.fromkeys(op.outputs, (before, op.factor * (factor if op.linear else 1.0)))
    return found


def match(ours: Sequence[Node], theirs: Sequence[Node], classifier: bool) -> dict[int, int]:
    """Match the nodes that are certainly the same: positions in ``ours`` to positions in ``theirs``.

    Args:
        ours: Nodes of the network.
        theirs: Nodes of the program.
        classifier: Whether the last nodes of both are classifiers, which match whatever their class counts are.
    """
    last = [[i for i, after in enumerate(_after(side)) if not after] for side in (ours, theirs)]
    pairs: dict[int, int] = {}
    heads: list[set[int]] = [set(), set()]
    if classifier and all(len(positions) == 1 for positions in last):
        pairs[last[0][0]] = last[1][0]
        heads = [set(positions) for positions in last]
    # The order of concatenated values tells equal nodes apart, but a program may concatenate in more steps than ours.
    # At last, what follows is ignored: before a new embedding, everything is as it was.
    for ordered, both in ((True, True), (False, True), (False, False)):
        numbers: dict[Hashable, int] = {}
        single = []
        for side, head, done in zip((ours, theirs), heads, (set(pairs), set(pairs.values())), strict=True):
            positions: dict[Hashable, list[int]] = defaultdict(list)
            for i, (leads, follows) in enumerate(_marks(side, head, numbers, ordered)):
                if i not in done:
                    positions[leads, follows if both else 0].append(i)
            single.append({mark: found[0] for mark, found in positions.items() if len(found) == 1})
        pairs |= {i: single[1][mark] for mark, i in single[0].items() if mark in single[1]}
    return pairs


def _marks(
    graph: Sequence[Node], heads: set[int], numbers: dict[Hashable, int], ordered: bool
) -> list[tuple[int, int]]:
    """Two numbers for each node: one stands for all that leads to it, one for the next ``HORIZON`` that follow it.

    Equal numbers stand for equal structures, also of two graphs that share ``numbers``.
    """

    def number(*what: Hashable) -> int:
        return numbers.setdefault(what, len(numbers))

    def around(marks: Sequence[int], where: Iterable[tuple[int, tuple[int, ...]]]) -> list[Any]:
        return sorted((marks[i], path if ordered else ()) for i, path in where)

    marks_alone = [
        number("head") if i in heads else number(*sorted(node.shapes.items())) for i, node in enumerate(graph)
    ]
    leads: list[int] = []
    for mark, node in zip(marks_alone, graph, strict=True):
        leads.append(number(mark, *around(leads, node.before)))
    after, follows = _after(graph), marks_alone
    for _ in range(HORIZON):
        pairs = zip(marks_alone, after, strict=True)
        follows = [number(mark, "then", *around(follows, behind)) for mark, behind in pairs]
    return list(zip(leads, follows, strict=True))


def _after(graph: Sequence[Node]) -> list[list[tuple[int, tuple[int, ...]]]]:
    """The nodes that read each node: their positions and the paths to them (see ``Origin``)."""
    after: list[list[tuple[int, tuple[int, ...]]]] = [[] for _ in graph]
    for i, node in enumerate(graph):
        for j, path in node.before:
            after[j].append((i, path))
    return after
