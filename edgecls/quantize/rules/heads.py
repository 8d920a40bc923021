"""Softmax is float: behind the int8 logits at the end, or between two grids. It is in the delegate all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras import layers

from edgecls.graph import Op
from edgecls.quantize import floats
from edgecls.quantize.registry import plans

if TYPE_CHECKING:
    from edgecls.quantize.plan import Plan, Value


@plans(layers.Softmax)
def softmax(plan: Plan, op: Op, values: list[Value]) -> Value:
    if plan.users(op) > 1 or op.output not in plan.graph.outputs:
        return floats.keep(plan, op, values)
    return plan.head(op, values[0])
