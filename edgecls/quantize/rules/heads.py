"""Probabilities: int8 ends at the logits, and a float softmax or sigmoid follows, which is in the delegate all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras import layers

from edgecls.errors import UsageError
from edgecls.graph import Op
from edgecls.quantize.registry import plans

if TYPE_CHECKING:
    from edgecls.quantize.plan import Plan, Value


@plans(layers.Softmax)
def softmax(plan: Plan, op: Op, values: list[Value]) -> Value:
    if plan.users(op) > 1 or op.output not in plan.graph.outputs:
        raise UsageError(
            "softmax inside the network, and int8 kernels have none",
            where=op.layer.name,
            fix="end the network with it, or use a sigmoid",
        )
    return plan.head(op, values[0])
