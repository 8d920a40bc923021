"""Optimizers, each with its options. An optimizer says itself how its weights decay.

An optimizer is a section of the recipe (``train.optimizer``) with a method ``make``. A new one is a class in
``OPTIMIZERS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from edgecls._lazy import Lazy
from edgecls._schema import Fraction, Section, one_of

if TYPE_CHECKING:
    import keras
else:
    keras = Lazy("keras")

UNDECAYED = ("gamma", "beta", "bias", "cls_token", "dist_token", "pos_embed", "range_min", "range_max")
"""Variables by these names are not decayed: they are scales, offsets and ends of ranges, not features."""


def decays(name: str) -> bool:
    """Whether the weight decay holds for a variable of this name."""
    return name not in UNDECAYED


class Optimizer(Section):
    """What every optimizer has.

    Attributes:
        decoupled: True: the optimizer shrinks the weights itself, by ``lr * weight_decay`` a step (Loshchilov & Hutter
            2017, arXiv:1711.05101). False: the step adds ``weight_decay`` times the weights to the gradient (L2).
    """

    decoupled: ClassVar[bool] = False

    name: str
    lr: float = Field(default=0.05, gt=0, description="highest learning rate of the schedule")
    weight_decay: float = Field(
        default=1e-4,
        ge=0,
        description="weight decay: L2, or decoupled where that is said; scales and offsets do not decay",
    )
    clip_norm: float | None = Field(
        default=None, gt=0, description="largest norm of the whole gradient; null: no limit"
    )

    def make(self, schedule: Any, weights: Sequence[Any]) -> keras.Optimizer:
        """The Keras optimizer of these variables. ``schedule`` gives the learning rate by step."""
        optimizer = self._make(schedule, {"weight_decay": self.weight_decay} if self.decoupled else {})
        if self.decoupled:
            # Keras asks with TensorFlow's name of a variable, which ends in ":0".
            optimizer.exclude_from_weight_decay(var_names=[rf"(^|/){name}(:\d+)?$" for name in UNDECAYED])
        optimizer.build(weights)
        return optimizer

    def _make(self, schedule: Any, decay: dict[str, Any]) -> keras.Optimizer:
        raise NotImplementedError


class Sgd(Optimizer):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = Field(default="sgd", description="gradient descent with momentum; L2")
    momentum: Fraction = Field(default=0.9, description="share of the last step that is taken again")
    nesterov: bool = Field(default=False, description="Nesterov momentum")

    def _make(self, schedule: Any, decay: dict[str, Any]) -> keras.Optimizer:
        return keras.optimizers.SGD(schedule, momentum=self.momentum, nesterov=self.nesterov)


class RmsProp(Optimizer):
    """RMSProp with momentum; the defaults are EfficientNet's (arXiv:1905.11946).

    That is TensorFlow's form: epsilon inside the root, the learning rate inside the momentum, and mean squares that begin
    with 1, so that the first steps are small. PaddlePaddle's begin with 0.
    """

    name: Literal["rmsprop"] = Field(default="rmsprop", description="RMSProp with momentum; L2")
    lr: float = Field(default=0.016, gt=0, description="highest learning rate of the schedule")
    rho: Fraction = Field(default=0.9, description="share of the old mean square that is kept at each step")
    momentum: Fraction = Field(default=0.9, description="share of the last step that is taken again")
    epsilon: float = Field(default=1e-3, gt=0, description="added to the mean square, inside the root")
    first_square: float = Field(
        default=1.0, ge=0, description="mean square before the first step; PaddlePaddle's is 0"
    )

    def make(self, schedule: Any, weights: Sequence[Any]) -> keras.Optimizer:
        optimizer = super().make(schedule, weights)
        for variable in optimizer.variables:
            if variable.path.endswith("_velocity"):  # what Keras calls the mean square
                variable.assign(keras.ops.full(variable.shape, self.first_square))
        return optimizer

    def _make(self, schedule: Any, decay: dict[str, Any]) -> keras.Optimizer:
        return keras.optimizers.RMSprop(schedule, rho=self.rho, momentum=self.momentum, epsilon=self.epsilon)


class _Moments(Optimizer):
    """What Adam and its kin have: running means of the gradient and of its square."""

    lr: float = Field(default=0.001, gt=0, description="highest learning rate of the schedule")
    beta_1: Fraction = Field(default=0.9, description="share of the old mean gradient that is kept")
    beta_2: Fraction = Field(default=0.999, description="share of the old mean square that is kept")


class Adam(_Moments):
    """Adam (Kingma & Ba 2014, arXiv:1412.6980) with L2."""

    name: Literal["adam"] = Field(default="adam", description="Adam with L2")

    def _make(self, schedule: Any, decay: dict[str, Any]) -> keras.Optimizer:
        return keras.optimizers.Adam(schedule, beta_1=self.beta_1, beta_2=self.beta_2)


class AdamW(_Moments):
    """Adam with decoupled decay (Loshchilov & Hutter 2017, arXiv:1711.05101)."""

    decoupled = True
    name: Literal["adamw"] = Field(default="adamw", description="Adam with decoupled decay")

    def _make(self, schedule: Any, decay: dict[str, Any]) -> keras.Optimizer:
        return keras.optimizers.AdamW(schedule, beta_1=self.beta_1, beta_2=self.beta_2, **decay)


class Lamb(_Moments):
    """LAMB, for very large batches (You et al. 2019, arXiv:1904.00962), with Keras' decoupled decay."""

    decoupled = True
    name: Literal["lamb"] = Field(default="lamb", description="LAMB, for very large batches; decoupled decay")
    lr: float = Field(default=0.005, gt=0, description="highest learning rate of the schedule")

    def _make(self, schedule: Any, decay: dict[str, Any]) -> keras.Optimizer:
        return keras.optimizers.Lamb(schedule, beta_1=self.beta_1, beta_2=self.beta_2, **decay)


class Lion(_Moments):
    """Lion, which keeps one moment only (Chen et al. 2023, arXiv:2302.06675)."""

    decoupled = True
    name: Literal["lion"] = Field(
        default="lion", description="Lion, which keeps one moment only; decoupled decay"
    )
    lr: float = Field(default=1e-4, gt=0, description="highest learning rate of the schedule")
    beta_2: Fraction = Field(default=0.99, description="share of the old mean gradient that is kept")

    def _make(self, schedule: Any, decay: dict[str, Any]) -> keras.Optimizer:
        return keras.optimizers.Lion(schedule, beta_1=self.beta_1, beta_2=self.beta_2, **decay)


OPTIMIZERS = (Sgd, RmsProp, Adam, AdamW, Lamb, Lion)
if TYPE_CHECKING:
    AnyOptimizer = Optimizer
else:
    AnyOptimizer = one_of(OPTIMIZERS)  # the type of the recipe's ``optimizer`` keys
