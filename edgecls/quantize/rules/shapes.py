"""Operations that move values and compute none: the output lies on the grid of the inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from keras import layers

from edgecls.graph import Op
from edgecls.quantize.registry import lowers, missing, plans
from edgecls.quantize.rules.activations import relu
from edgecls.zoo import hrnet, pplcnet_v2
from edgecls.zoo import layers as zoo_layers

if TYPE_CHECKING:
    from edgecls.quantize.lower import Lowering
    from edgecls.quantize.plan import Plan, Value

Tensor = Any

MOST_PARTS = 5  # of a concatenation in XNNPACK


@lowers(layers.UpSampling2D)
def _upsampling(lowering: Lowering, layer: Any, inputs: Tensor) -> Tensor:
    height, width = layer.size
    name = lowering.name(layer.name)
    if layer.interpolation == "nearest" and height == width and height & (height - 1) == 0:
        return hrnet.Repeat(height, name=name)(inputs) if height > 1 else inputs
    if layer.interpolation == "bilinear":
        return layers.UpSampling2D(layer.size, interpolation="bilinear", name=name)(inputs)
    what = f"{layer.interpolation} upsampling by {height} x {width}"
    raise missing(layer, f"{what}; nearest by 2, 4 or 8 and bilinear have one")


@plans(layers.ZeroPadding2D, layers.Flatten, layers.Reshape)
def _moved(plan: Plan, op: Op, values: list[Value]) -> Value:
    return same_grid(plan, op, values[0])


@plans(layers.Cropping2D, layers.Permute, zoo_layers.Channels, zoo_layers.ChannelShuffle, hrnet.Repeat)
def _cut(plan: Plan, op: Op, values: list[Value]) -> Value:
    return same_grid(plan, op, values[0], again=True)


@plans(pplcnet_v2.DeployKernel)
def _carrier(plan: Plan, op: Op, values: list[Value]) -> Value:
    return plan.same(op, values[0])


def same_grid(plan: Plan, op: Op, value: Value, again: bool = False) -> Value:
    """``op`` itself, on the grid of ``value``; see ``Node`` for ``again``."""
    value = plan.plain(value) if value.scalable else plan.unshifted(value)  # behind it a scale is not free
    node = plan.add(op, type(op.layer), [plan.on_grid(value)])
    # Two equal operations on one tensor become one in the file, with two readers.
    plan.passing(op, node, [value.node.grid], again or value.users > 1)
    return plan.result(op, node, scale=value.scale)


@plans(layers.Concatenate)
def _concatenate(plan: Plan, op: Op, values: list[Value]) -> Value:
    """All parts at one scale on one grid, at most five in one operation. A ReLU that follows goes to the parts."""
    follower = plan.follower(op)
    if follower and type(follower.layer) is layers.ReLU and all(map(plan.fusible, values)):
        names = [plan.free_name(f"{follower.layer.name}.{i}") for i in range(len(values))]
        top = follower.layer.max_value
        values = [replace(relu(plan, op, v, top, n), users=1) for v, n in zip(values, names, strict=True)]
        plan.done.add(follower.layer.name)
    fixed = [value.scale for value in values if not value.scalable]
    scale = max(max(fixed, default=values[0].scale), 0.0) or 1.0
    values = [plan.rescaled(value, scale) for value in values]
    values = plan.on_one_grid(values)
    nodes = [value.node for value in values]
    while len(nodes) > MOST_PARTS:
        name = plan.free_name(f"{op.layer.name}.part")
        part = plan.node(name, layers.Concatenate, nodes[:MOST_PARTS], {"axis": op.layer.axis})
        nodes = [plan.passing(op, part, [node.grid for node in part.inputs], again=True), *nodes[MOST_PARTS:]]
    node = plan.add(op, layers.Concatenate, nodes)
    plan.passing(op, node, [node.grid for node in nodes], again=True)
    return plan.result(op, node, scale=scale)
