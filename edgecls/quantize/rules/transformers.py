"""What int8 kernels do not compute: it is refused, unless it is to stay in float."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras import layers

from edgecls.errors import UsageError
from edgecls.graph import Op
from edgecls.quantize.registry import plans
from edgecls.zoo import vit

if TYPE_CHECKING:
    from edgecls.quantize.plan import Plan, Value


@plans(layers.LayerNormalization, layers.MultiHeadAttention, vit.Tokens, vit.Attention)
def _transformer(plan: Plan, op: Op, values: list[Value]) -> Value:
    raise UsageError(
        "transformers are not quantized: layer normalization and attention would stay in float",
        where=op.layer.name,
        fix="use the float file: edgecls export RUN --precision fp32,fp16",
    )
