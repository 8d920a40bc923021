"""ELU, in float between two grids, and what it is a part of: SELU, CELU, an ELU with another ``alpha``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras import layers
from keras.src.ops import nn

from edgecls.graph import Op
from edgecls.quantize import floats
from edgecls.quantize.registry import lowers, plans
from edgecls.quantize.rules.activations import FORMS

if TYPE_CHECKING:
    from edgecls.quantize.lower import Lowering
    from edgecls.quantize.plan import Plan, Value

Tensor = Any

SELU = 1.0507009873554805, 1.6732632423543772  # factor and alpha (Klambauer et al., 2017, arXiv:1706.02515)


def elu(name: str, alpha: float = 1.0, factor: float = 1.0) -> Callable[[Tensor], Tensor]:
    """``factor`` times an ELU. TFLite has that of alpha 1: another is a part of it, and for the rest a ReLU."""

    def parts(x: Tensor) -> Tensor:
        if alpha == factor == 1.0:
            return layers.ELU(name=name)(x)
        curve = layers.Rescaling(factor * alpha, name=f"{name}.scale")(layers.ELU(name=f"{name}.elu")(x))
        line = layers.Rescaling(factor * (1 - alpha), name=f"{name}.line")(
            layers.ReLU(name=f"{name}.relu")(x)
        )
        return layers.Add(name=name)([curve, line])

    return parts


FORMS |= {"elu": elu, "celu": elu, "selu": lambda name: elu(name, SELU[1], SELU[0])}


@lowers(layers.ELU, nn.Elu, nn.Celu)
def _elu(lowering: Lowering, layer: Any, inputs: Tensor) -> Tensor:
    """A CELU is ``alpha * elu(x / alpha)``."""
    alpha, name = float(layer.alpha), lowering.name(layer.name)
    if not isinstance(layer, nn.Celu):
        return elu(name, alpha)(inputs)
    inner = layers.Rescaling(1 / alpha, name=f"{name}.in")(inputs)
    return layers.Rescaling(alpha, name=name)(layers.ELU(name=f"{name}.elu")(inner))


@lowers(nn.Selu)
def _selu(lowering: Lowering, op: Any, inputs: Tensor) -> Tensor:
    return elu(lowering.name(op.name), SELU[1], SELU[0])(inputs)


floats.REASONS[layers.ELU] = "TFLite's converter makes no int8 ELU"


@plans(layers.ELU)
def _plan(plan: Plan, op: Op, values: list[Value]) -> Value:
    return floats.keep(plan, op, values)
