"""Layer normalization and attention: int8 kernels do not compute them, so a network that has them is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from keras import layers

from edgecls.errors import UsageError
from edgecls.quantize.registry import lowers
from edgecls.zoo import vit

if TYPE_CHECKING:
    from edgecls.quantize.lower import Lowering


@lowers(layers.LayerNormalization, layers.MultiHeadAttention, vit.Tokens, vit.Attention)
def _transformer(lowering: Lowering, layer: Any, inputs: Any) -> NoReturn:
    raise UsageError(
        "transformers are not quantized: layer normalization and attention would stay in float",
        where=layer.name,
        fix="use the float file: edgecls export RUN --precision fp32,fp16",
    )
