"""Second pass: which int8 operations the network becomes, on which grids, at which scales.

The plan is a list of ``Node``; each is one layer of the twin. Most are one operation of the file. A node is on a grid if
something needs it there: convolution, batch normalization and ReLU are one int8 operation, so they get one grid, after
the last of them. Nodes that must share a grid (a concatenation and its parts) share one ``Grid`` object, by union.

Scales. A node computes ``scale`` times what the float network has there, plus ``shift``. Hard-swish comes out six times
too large, because its int8 form is ``x * relu6(x + 3)``. The next kernel divides by that; see ``layers``.

Nothing is computed here, so a plan can be printed (``Plan.text``) and tested.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgecls.graph import Graph, Op, Ref
from edgecls.quantize import floats, registry
from edgecls.quantize import layers as ql

HEADROOM = 1.5  # of the logits
LAST_BIT = 2.0**-22


@dataclass(eq=False)
class Grid:
    """An int8 grid, on which one node lies or several.

    Args:
        fixed: Its range if known beforehand; else it is calibrated.
        floor: Its lower end if what follows treats all lower values alike.
        width: Its least width.
        headroom: Factor of the calibrated range.
        symmetric: Its zero is the integer 0.
        nodes: The nodes whose values decide its range.
    """

    fixed: tuple[float, float] | None = None
    floor: float | None = None
    width: float = 0.0
    headroom: float = 1.0
    symmetric: bool = False
    nodes: list[Node] = field(default_factory=list)
    _joined: Grid | None = None

    @property
    def root(self) -> Grid:
        """The grid that this one has become part of."""
        return self._joined.root if self._joined else self

    def join(self, other: Grid) -> None:
        """Make the two one grid. At most one of them may have a fixed range, unless both have the same."""
        mine, others = self.root, other.root
        if mine is others:
            return
        mine.fixed = mine.fixed or others.fixed
        mine.floor = None if mine.floor is None or others.floor is None else min(mine.floor, others.floor)
        mine.width, mine.headroom = max(mine.width, others.width), max(mine.headroom, others.headroom)
        mine.symmetric |= others.symmetric
        mine.nodes += others.nodes
        others._joined = mine


@dataclass(eq=False)
class Node:
    """A layer of the twin and its output.

    Args:
        name: Of the layer.
        kind: Class of the layer.
        config: Arguments of the layer.
        inputs: The nodes whose outputs it takes.
        source: The layer of the float network whose weights it has.
        grid: The grid that its output lies on; None if it is not put on one.
        passes: It passes its input's grid on, and has no part in deciding its range.
        again: Its output is put on the grid once more. The converter wants that where it has several readers or where
            the operation has several inputs.
        in_float: It computes in float, in the file too.
    """

    name: str
    kind: type
    config: dict[str, Any]
    inputs: list[Node]
    source: Any = None
    grid: Grid | None = None
    passes: bool = False
    again: bool = False
    in_float: bool = False

    @property
    def origin(self) -> Node:
        """The node that computed the values of its first input."""
        node = self.inputs[0]
        return node.origin if node.passes else node


@dataclass(frozen=True)
class Value:
    """What a tensor of the float network is in the twin.

    Args:
        node: The node that computes it.
        users: How many operations take it.
        scale: The node computes ``scale`` times the float network's tensor, plus ``shift``.
        shift: See ``scale``.
        linear: TFLite fuses a following ReLU into its operation.
        maker: The node whose ``output_scale`` decides the scale, if there is one.
    """

    node: Node
    users: int
    scale: float = 1.0
    shift: float = 0.0
    linear: bool = False
    maker: Node | None = None

    @property
    def scalable(self) -> bool:
        """Whether another scale costs no operation."""
        free = self.maker is not None and self.users == 1 and self.node.grid is None
        return free and (not self.shift or self.shiftable)

    @property
    def as_float(self) -> bool:
        """Whether the node computes in float, and the float network's tensor itself."""
        return self.node.in_float and self.scale == 1.0 and not self.shift

    @property
    def shiftable(self) -> bool:
        """Whether another shift costs no operation either, if another scale costs none."""
        return self.node is self.maker and issubclass(self.node.kind, ql.QuantizedKernel)


class Plan:
    """The nodes of the twin; what rules call to add to it.

    Args:
        graph: Of a network from ``lower``.
        kept: Names of its layers that stay in float.
        per_channel: Kernels have a scale for each output channel; otherwise one.

    Attributes:
        nodes: In an order in which they can be computed.
        outputs: The nodes that the network returns.
        notes: What a reader of the plan should know, by the layer it is about.
    """

    def __init__(self, graph: Graph, kept: Collection[str] = (), per_channel: bool = True) -> None:
        self.graph, self.kept, self.per_channel = graph, kept, per_channel
        self.nodes: list[Node] = []
        self.outputs: list[Node] = []
        self.notes: dict[str, str] = {}
        self.values: dict[Ref, Value] = {}
        self.done: set[str] = set()  # layers that an earlier rule has dealt with
        self.stems: dict[str, dict[str, Any]] = {}  # by layer: what its kernel does to pixels beside
        for op in graph.ops:
            self.values[op.output] = self._plan(op, [self.values[ref] for ref in op.inputs])
        for ref in graph.outputs:
            self.outputs.append(self._end(self.values[ref]))

    def _plan(self, op: Op, values: list[Value]) -> Value:
        if op.inputs and floats.stays(self, op, values):
            return floats.keep(self, op, values)
        if op.layer.name in self.done:
            return replace(values[0], users=self.users(op))
        rule = registry.find(registry.PLANS, op.layer)
        if rule is None:
            raise registry.missing(op.layer)
        return rule(self, op, values)

    def _end(self, value: Value) -> Node:
        return self._logits(value)

    def _logits(self, value: Value) -> Node:
        if value.as_float:
            return value.node
        node = self.on_grid(self.plain(value))
        assert node.grid is not None
        node.grid.root.headroom = HEADROOM
        return node

    # What rules call.

    def add(self, op: Op, kind: type, inputs: Sequence[Node], **config: Any) -> Node:
        """A node in place of ``op``, with the layer's name and configuration."""
        config = {**op.layer.get_config(), **config}
        config.pop("name", None)
        return self.node(op.layer.name, kind, inputs, config, op.layer)

    def node(
        self, name: str, kind: type, inputs: Sequence[Node], config: dict[str, Any], source: Any = None
    ) -> Node:
        """A new node."""
        if not self.per_channel and issubclass(kind, ql.QuantizedKernel | ql.ConstantConv2D):
            config = {**config, "per_channel": False}
        node = Node(name, kind, config, list(inputs), source)
        if kind is ql.ConstantConv2D:
            self._make_unequal(node)
        self.nodes.append(node)
        return node

    def _make_unequal(self, node: Node) -> None:
        """Change the last bit of the scale if an earlier node computes the same of the same.

        The converter makes one operation of two equal ones, and leaves it in float if they are on two grids.
        """
        scale = np.array(node.config["scale"])
        twins = [
            other
            for other in self.nodes
            if other.kind is node.kind and other.origin is node.origin and _close(other, node)
        ]
        node.config = {**node.config, "scale": (scale * (1 + len(twins) * LAST_BIT)).tolist()}

    def result(self, op: Op, node: Node, **meaning: Any) -> Value:
        """The value that ``op`` makes."""
        return Value(node, self.users(op), **meaning)

    def users(self, op: Op) -> int:
        """How many operations take the output of ``op``. Being an output of the network counts as one more."""
        return self.graph.users[op.output]

    def follower(self, op: Op) -> Op | None:
        """The operation that alone takes the output of ``op``, if one does."""
        consumers = self.graph.consumers(op.output)
        return consumers[0] if self.users(op) == len(consumers) == 1 else None

    def same(self, op: Op, value: Value, **changes: Any) -> Value:
        """The value of an ``op`` that costs nothing."""
        return replace(value, users=max(value.users, self.users(op)), **changes)

    def on_grid(
        self,
        value: Value,
        floor: float | None = None,
        fixed: tuple[float, float] | None = None,
        width: float = 0.0,
    ) -> Node:
        """The node of ``value``, on a grid that is at least ``width`` wide. It is made on first need."""
        node = value.node
        if node.grid is None:
            node.grid = Grid(fixed, floor, nodes=[node])
        node.grid.root.width = max(node.grid.root.width, width)
        return node

    def on_symmetric_grid(self, value: Value) -> Node:
        """The node of ``value``, on a grid whose zero is the integer 0. From a fixed grid it is copied, by an operation."""
        if value.node.grid and value.node.grid.root.fixed:
            value = self.affine(value, 1.0, 0.0, f"{value.node.name}.copy", value.scale)
        node = self.on_grid(value)
        assert node.grid is not None
        node.grid.root.symmetric = True
        return node

    def passing(self, op: Op, node: Node, grids: Sequence[Grid | None], again: bool = False) -> Node:
        """Say that the output of ``node`` has the grid of its inputs, which must be one grid."""
        first = grids[0]
        assert first is not None
        for grid in grids[1:]:
            assert grid is not None
            first.join(grid)
        node.grid, node.passes, node.again = first, True, again or self.users(op) > 1
        return node

    def fused(self, value: Value) -> Node:
        """The node of ``value`` for an activation that TFLite fuses into the operation before.

        If that has another reader or cannot take the activation, an operation is added that changes nothing.
        """
        if not self.fusible(value):
            value = self.affine(value, 1.0, 0.0, f"{value.node.name}.identity", value.scale, value.shift)
        return value.node

    def fusible(self, value: Value) -> bool:
        """Whether TFLite fuses an activation into the operation of ``value``."""
        return value.linear and value.users == 1 and value.node.grid is None

    def rescaled(self, value: Value, scale: float, shift: float = 0.0) -> Value:
        """``value`` at another scale. It costs an operation, unless the node that decides its scale takes the factor."""
        factor = scale / value.scale
        if factor == 1.0 and shift == value.shift:
            return value
        offset = shift - value.shift * factor
        maker = value.maker
        direct = value.node is maker
        if (
            maker is not None
            and value.scalable
            and (direct or factor > 0)
            and (not offset or value.shiftable)
        ):
            maker.config["output_scale"] = maker.config.get("output_scale", 1.0) * factor
            if value.shiftable:
                maker.config["output_shift"] = maker.config.get("output_shift", 0.0) * factor + offset
            return replace(value, scale=scale, shift=shift)
        return self.affine(value, factor, offset, f"{value.node.name}.rescale", scale, shift)

    def plain(self, value: Value) -> Value:
        """``value`` at the scale of the float network, for functions that are not homogeneous."""
        return self.rescaled(value, 1.0)

    def unshifted(self, value: Value) -> Value:
        """``value`` at a positive scale without shift."""
        return value if not value.shift and value.scale > 0 else self.plain(value)

    def affine(
        self, value: Value, factor: float, offset: float, name: str, scale: float, shift: float = 0.0
    ) -> Value:
        """``value * factor + offset`` as an operation of its own; the result has ``scale`` and ``shift``."""
        config = {"scale": factor, "offset": offset}
        node = self.node(self.free_name(name), ql.ConstantConv2D, [self.on_grid(value)], config)
        return Value(node, 1, scale, shift, linear=True)

    def head(self, op: Op, value: Value) -> Value:
        """``op`` as the float end of the network, behind the logits."""
        node = self.add(op, type(op.layer), [self._logits(value)])
        node.in_float = True
        self.notes[op.layer.name] = "computed in float from the logits"
        return self.result(op, node)

    def join(self, a: Node, b: Node) -> None:
        """Put two nodes that are on grids on one."""
        assert a.grid is not None
        assert b.grid is not None
        a.grid.join(b.grid)

    def on_one_grid(self, values: Sequence[Value]) -> list[Value]:
        """``values``, of one scale, on one grid. One whose grid is fixed is copied to another, by an operation."""
        nodes = [self.on_grid(value) for value in values]
        ranges = {node.grid.root.fixed for node in nodes if node.grid}
        if len(ranges) > 1:
            copied = [
                self.affine(v, 1.0, 0.0, f"{v.node.name}.copy", v.scale) if v.node.grid.root.fixed else v  # type: ignore[union-attr]
                for v in values
            ]
            return self.on_one_grid(copied)
        for node in nodes[1:]:
            self.join(nodes[0], node)
        return list(values)

    def free_name(self, wish: str) -> str:
        """``wish``, or that with a number if a node has it already."""
        taken = {node.name for node in self.nodes}
        numbered = (f"{wish}_{count}" for count in itertools.count(1))
        return next(name for name in itertools.chain([wish], numbered) if name not in taken)

    def text(self) -> str:
        """The plan for people: a line for each operation of the file."""
        return "\n".join(_lines(self))


def _close(a: Node, b: Node) -> bool:
    """Whether the scales are equal but for what ``_make_unequal`` has changed, and all else is equal."""
    one, two = ({key: value for key, value in node.config.items() if key != "scale"} for node in (a, b))
    return one == two and np.allclose(a.config["scale"], b.config["scale"], rtol=1e-5, atol=0.0)


def _lines(plan: Plan) -> Iterator[str]:
    readers = Counter(source for node in plan.nodes for source in node.inputs)
    members: dict[Grid, int] = Counter(node.grid.root for node in plan.nodes if node.grid)
    fused: dict[Node, list[Node]] = {}  # what the operation that ends in a node is made of
    for node in plan.nodes:
        before = node.inputs[0] if node.inputs else None
        alone = before is not None and before.grid is None and not before.in_float and readers[before] == 1
        fused[node] = [*fused[before], node] if alone and before and before.inputs else [node]
        if node.kind is floats.Boundary or (node.grid is None and not node.in_float and node.inputs):
            continue  # part of the operation that the next node ends
        yield _line(plan, fused[node], members)


def _line(plan: Plan, parts: list[Node], members: dict[Grid, int]) -> str:
    last, kinds = parts[-1], " + ".join(part.kind.__name__.removeprefix("Quantized") for part in parts)
    facts = [kinds]
    if last.grid:
        grid = last.grid.root
        if grid.nodes[0] is not last:
            facts.append(f"on the grid of {grid.nodes[0].name}")
        elif members[grid] > 1:
            facts.append(f"shares its grid with {members[grid] - 1} more")
        if grid.fixed:
            facts.append("range {:.4g} to {:.4g}".format(*grid.fixed))
        if grid.symmetric and grid.nodes[0] is last:
            facts.append("symmetric")
    for part in parts:
        scale = part.config.get("input_scale", 1.0)
        if not isinstance(scale, float):
            facts.append("its kernel normalizes the pixels")
        elif scale != 1.0:
            facts.append(f"its kernel divides by {scale:.4g}")
        if not part.config.get("per_channel", True):
            facts.append("one scale for its kernel")
        if part.name in plan.notes:
            facts.append(plan.notes[part.name])
    return f"{last.name}: {', '.join(facts)}"
