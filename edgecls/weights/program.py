"""Find which arrays of an exported program are which of a network's, by the shape of the graph.

An exported program calls its arrays ``conv2d_17.w_0`` or worse. Order alone does not tell them apart: the two
convolutions that meet in a ResNet's first addition have equal shapes, and every exporter lists them in its own order.
So arrays are matched by what leads to them and what follows them, and what is not unique is not matched at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

HORIZON = 8  # how many operations behind one tell twins apart


# Nodes that a value comes from, directly or through operations without arrays: their positions, and which part of
# joined values each was on the way.
Origin = frozenset[tuple[int, tuple[int, ...]]]


@dataclass
class Op:
    """One operation of a program.

    Args:
        inputs: Names of the values that it reads, arrays apart.
        outputs: Names of the values that it makes.
        arrays: Part of the state (``weight``, ``bias``, ``_mean``, ``_variance``) to the array's name in the file.
        factor: What it multiplies its input by, as dropout may do at inference.
        joins: Whether it lays its inputs behind each other, so that their order matters.
        linear: Whether a positive factor on its input is one on its output, as with reshapes and pools.
    """

    inputs: Sequence[str]
    outputs: Sequence[str]
    arrays: dict[str, str] = field(default_factory=dict)
    factor: float = 1.0
    linear: bool = False
    joins: bool = False


@dataclass
class Node:
    """An operation with arrays, in its place in the graph.

    Args:
        shapes: Part of the state to its shape in PaddlePaddle's layout.
        before: Where its inputs come from.
        arrays: Part of the state to the array's name.
        factor: What its input was multiplied by on the way.
    """

    shapes: dict[str, tuple[int, ...]]
    before: Origin
    arrays: dict[str, str]
    factor: float = 1.0


def origin(before: Sequence[Origin], joins: bool) -> Origin:
    """Where the result of an operation comes from, given where its inputs do."""
    parts = ((part,) if joins else () for part in range(len(before)))
    pairs = zip(before, parts, strict=True)
    return Origin((node, path + part) for nodes_, part in pairs for node, path in nodes_)


def nodes(ops: Iterable[Op], arrays: dict[str, np.ndarray]) -> list[Node]:
    """The nodes of a program, in order of execution; a bias that is added to a kernel's result is that kernel's."""
    found: list[Node] = []
    came: dict[str, tuple[Origin, float]] = {}  # value: where it comes from, the factor on it
    direct: dict[str, Node] = {}  # value: the kernel whose very result it is
    for op in ops:
        known = [came[name] for name in op.inputs if name in came]
        before = origin([where for where, _ in known], op.joins)
        factor = known[0][1] if known else 1.0  # what is reshaped comes first, its new shape after it
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
        came |= dict.fromkeys(op.outputs, (before, op.factor * (factor if op.linear else 1.0)))
    return found


def match(ours: Sequence[Node], theirs: Sequence[Node], classifier: bool) -> dict[int, int]:
    """Positions in ``ours`` to positions in ``theirs`` of the nodes that are the same beyond doubt.

    Args:
        ours: Nodes of the network.
        theirs: Nodes of the program.
        classifier: The last of both are classifiers, which belong together whatever their width.
    """
    last = [[i for i, after in enumerate(_after(side)) if not after] for side in (ours, theirs)]
    pairs: dict[int, int] = {}
    heads: list[set[int]] = [set(), set()]
    if classifier and all(len(ends) == 1 for ends in last):
        pairs[last[0][0]] = last[1][0]
        heads = [set(ends) for ends in last]
    # The order of joined values tells twins apart, but the same may also be joined in more steps. What follows is
    # left out at last: behind a new embedding all else is as it was.
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
    """For each node, a number for all that leads to it and one for what follows it nearby.

    Equal numbers mean equal things, in both graphs if they share ``numbers``.
    """

    def number(*what: Hashable) -> int:
        return numbers.setdefault(what, len(numbers))

    def around(marks: Sequence[int], where: Iterable[tuple[int, tuple[int, ...]]]) -> list[Any]:
        return sorted((marks[i], path if ordered else ()) for i, path in where)

    own = [
        number("head") if i in heads else number(*sorted(node.shapes.items())) for i, node in enumerate(graph)
    ]
    leads: list[int] = []
    for mark, node in zip(own, graph, strict=True):
        leads.append(number(mark, *around(leads, node.before)))
    after, follows = _after(graph), own
    for _ in range(HORIZON):
        pairs = zip(own, after, strict=True)
        follows = [number(mark, "then", *around(follows, behind)) for mark, behind in pairs]
    return list(zip(leads, follows, strict=True))


def _after(graph: Sequence[Node]) -> list[list[tuple[int, tuple[int, ...]]]]:
    """What reads from each node: positions, and which part of joined values it is there."""
    after: list[list[tuple[int, tuple[int, ...]]]] = [[] for _ in graph]
    for i, node in enumerate(graph):
        for j, path in node.before:
            after[j].append((i, path))
    return after
