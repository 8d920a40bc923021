"""Learning rates and freezing by stage: which weights of a network train, and how fast.

The keys ``train.lr_mult_list`` and ``train.freeze`` name stages of the network, see ``edgecls.stages``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgecls.errors import UsageError
from edgecls.train.optimizers import Optimizer
from edgecls.zoo.entry import HEAD

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from edgecls.zoo.entry import Entry

BACKBONE = "backbone"


def check_stages(entry: Entry, lr_mult_list: Sequence[float] | None, freeze: Sequence[str]) -> None:
    """Refuse keys that do not fit the stages of a network, without building it.

    Args:
        entry: The network.
        lr_mult_list: The recipe's key.
        freeze: The recipe's key.

    Raises:
        UsageError: The list has another length, there is no such stage, or nothing is left to train. ``where`` is the
            key.

    Example:
        >>> from edgecls.zoo import catalog
        >>> check_stages(catalog.get("ResNet50_vd"), [0.1, 0.1, 0.2, 0.2, 0.3], ["stem", "1"])
    """
    if lr_mult_list is not None:
        _named_factors(lr_mult_list, list(entry.stages), list(entry.lr_groups), entry.name)
    _frozen_stages(freeze, list(entry.stages), entry.name)


def lr_factors(model: keras.Model, lr_mult_list: Sequence[float] | None) -> list[float]:
    """The factor of the learning rate of each of a model's trainable variables.

    Args:
        model: A network.
        lr_mult_list: Factors of the stem, the stages and, if there is one more, the head, which else has 1. Five
            factors for MobileNetV3 are those of PaddleClas' five groups of its blocks. None: 1 for all.

    Raises:
        UsageError: The list has another length.

    Example:
        >>> model = edgecls.build_model("ResNet18", classes=3, input_size=32)
        >>> factors = lr_factors(model, [0.1, 0.1, 0.2, 0.2, 0.3])
        >>> factors[0], factors[-1]
        (0.1, 1.0)
    """
    from edgecls.stage_layers import lr_groups_of, stages_of

    if lr_mult_list is None:
        return [1.0] * len(model.trainable_variables)
    divisions = [stages_of(model), lr_groups_of(model)]
    stages, groups = ([name for name in division if name != HEAD] for division in divisions)
    factors = _named_factors(lr_mult_list, stages, groups, model.name)
    division = next(division for division in divisions if factors.keys() <= division.keys())
    of_variable = {
        id(variable): factors.get(name, 1.0)
        for name, layers in division.items()
        for layer in layers
        for variable in layer.variables
    }
    return [of_variable[id(variable)] for variable in model.trainable_variables]


@contextmanager
def frozen(model: keras.Model, freeze: Sequence[str]) -> Iterator[None]:
    """Within the block, the weights of these stages do not train, and their batch normalization uses stored statistics.

    Gradients are computed only down to the first layer that trains.

    Args:
        model: A network; it is as before after the block.
        freeze: Names of stages, or ``backbone`` for all but the head.

    Raises:
        UsageError: There is no such stage, or nothing would train.
    """
    from edgecls.stage_layers import stages_of

    layers: list[keras.Layer] = []
    if freeze:
        division = stages_of(model)
        names = _frozen_stages(freeze, [name for name in division if name != HEAD], model.name)
        layers = [leaf for name in names for layer in division[name] for leaf in layer._flatten_layers()]
    before = [layer.trainable for layer in layers]
    try:
        for layer in layers:
            layer.trainable = False
        yield
    finally:
        for layer, trainable in zip(layers, before, strict=True):
            layer.trainable = trainable


class Optimizers:
    """An optimizer for each factor of the learning rate, with the weights that have it; applied together.

    The learning rate is the schedule's times the factor. So the whole update is, decoupled weight decay included.

    Args:
        config: The recipe's ``optimizer`` section.
        schedule: A schedule, given the factor.
        weights: Variables that train.
        factors: One for each of ``weights``.

    Example:
        >>> import keras
        >>> from edgecls.train.optimizers import Sgd
        >>> w = [keras.Variable([1.0]), keras.Variable([1.0])]
        >>> both = Optimizers(Sgd(weight_decay=0.0), lambda factor: 0.5 * factor, w, [1.0, 0.1])
        >>> both.apply([[1.0], [1.0]])
        >>> [round(float(v[0]), 3) for v in w]
        [0.5, 0.95]
    """

    def __init__(
        self,
        config: Optimizer,
        schedule: Callable[[float], Any],
        weights: Sequence[Any],
        factors: Sequence[float],
    ) -> None:
        self._weights = list(weights)
        self._members = {
            factor: [i for i, other in enumerate(factors) if other == factor]
            for factor in sorted(set(factors))
        }
        self._parts = [
            config.make(schedule(factor), [weights[i] for i in members])
            for factor, members in self._members.items()
        ]

    @property
    def variables(self) -> list[Any]:
        """The state of all, which a resumed training needs."""
        return [variable for part in self._parts for variable in part.variables]

    @property
    def iterations(self) -> Any:
        """The number of steps done."""
        return self._parts[0].iterations

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """One step. ``gradients`` are in the order of the weights."""
        for part, members in zip(self._parts, self._members.values(), strict=True):
            part.apply([gradients[i] for i in members], [self._weights[i] for i in members])


def _named_factors(
    given: Sequence[float], stages: Sequence[str], groups: Sequence[str], network: str
) -> dict[str, float]:
    """The factors by the names of what they are for: stages, stages and head, or PaddleClas' groups."""
    for names in (stages, [*stages, HEAD], groups):
        if len(names) == len(given):
            return dict(zip(names, given, strict=True))
    by_group = (
        f", or {len(groups)} as PaddleClas groups them" if groups and len(groups) != len(stages) else ""
    )
    raise UsageError(
        f"{len(given)} factors, but {network} has the stages {', '.join(stages)}",
        where="lr_mult_list",
        fix=f"give {len(stages)} factors, {len(stages) + 1} with the head's{by_group}",
    )


def _frozen_stages(freeze: Sequence[str], stages: Sequence[str], network: str) -> list[str]:
    """The stages that ``freeze`` means."""
    known = ", ".join((*stages, HEAD, BACKBONE))
    for name in freeze:
        if name not in (*stages, HEAD, BACKBONE):
            raise UsageError(f"{network} has no stage {name!r}", where="freeze", fix=f"name some of: {known}")
    names = [name for name in (*stages, HEAD) if name in freeze or (BACKBONE in freeze and name != HEAD)]
    if len(names) == len(stages) + 1:
        raise UsageError(
            "every stage is frozen", where="freeze", fix="leave one out, so that something trains"
        )
    return names
