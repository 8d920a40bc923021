"""Which values a trial gets. They depend on the recipe's seed, the study's name, the trial's number and earlier trials."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from edgecls.search.space import Choices, Range, Space, Values

RETRY = "retry_of"
"""Attribute of a trial that does a former one again, which did not end: that one's number (``ordinal``)."""


def ordinal(study: optuna.Study, trial: optuna.Trial | optuna.trial.FrozenTrial) -> int:
    """Number of a trial, counted from 0 without those that do a former one again, which have its number.

    So a search that was interrupted numbers, and draws, its trials like one that went through.
    """
    if RETRY in trial.user_attrs:
        return trial.user_attrs[RETRY]
    trials = study.get_trials(deepcopy=False)
    return sum(other.number < trial.number and RETRY not in other.user_attrs for other in trials)


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The space as Optuna's distributions; a choice is its JSON text, because a storage holds no other values."""
    return {key: _distribution(parameter) for key, parameter in space.parameters.items()}


def _distribution(parameter: Range | Choices) -> BaseDistribution:
    if isinstance(parameter, Choices):
        return CategoricalDistribution([json.dumps(value) for value in parameter.values])
    low, high = parameter.ends
    if parameter.step is not None:
        high = parameter.grid[-1]  # Optuna wants the last step as the end
    if parameter.whole:
        return IntDistribution(int(low), int(high), log=parameter.log, step=int(parameter.step or 1))
    return FloatDistribution(low, high, log=parameter.log, step=parameter.step)


def encoded(space: Space, values: Values) -> dict[str, Any]:
    """Values of recipe keys as a storage holds them."""
    return {
        key: json.dumps(value) if isinstance(space.parameters[key], Choices) else value
        for key, value in values.items()
    }


def decoded(space: Space, params: Mapping[str, Any]) -> Values:
    """The opposite of ``encoded``."""
    return {
        key: json.loads(value) if isinstance(space.parameters[key], Choices) else value
        for key, value in params.items()
    }


def draw(trial: optuna.Trial, space: Space) -> Values:
    """Values for a trial, which the storage knows from now on."""
    for key, kind in distributions(space).items():
        if isinstance(kind, CategoricalDistribution):
            trial.suggest_categorical(key, kind.choices)
        elif isinstance(kind, IntDistribution):
            trial.suggest_int(key, kind.low, kind.high, log=kind.log, step=kind.step)
        elif isinstance(kind, FloatDistribution):
            trial.suggest_float(key, kind.low, kind.high, log=kind.log, step=kind.step)
    return decoded(space, trial.params)


class _Whole(optuna.samplers.BaseSampler):
    """Decides all keys of a trial together.

    Args:
        study: Its name and the numbers of its trials decide what is drawn.
        space: Gives the keys.
    """

    def __init__(self, study: optuna.Study, space: Space) -> None:
        self._study = study
        self._space = distributions(space)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._space


class Grid(_Whole):
    """All combinations in order: a trial gets the one of its number.

    Args:
        study: Numbers the trials.
        space: Gives the combinations.
    """

    def __init__(self, study: optuna.Study, space: Space) -> None:
        super().__init__(study, space)
        self._points = [encoded(space, values) for values in space.grid]

    def sample_relative(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        return self._points[ordinal(self._study, trial) % len(self._points)]

    def sample_independent(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        raise AssertionError(f"{param_name} is not in the grid")


class Bayes(_Whole):
    """TPE (https://arxiv.org/abs/2304.11127), seeded for each trial anew; the first trial is the recipe itself.

    Optuna's sampler draws on from one seed instead, so that a resumed search would draw otherwise than one that went
    through.

    Args:
        study: Its name and the numbers of its trials decide what is drawn.
        seed: Of the recipe, which decides, too.
        space: Gives the keys.
        start: Values of the first trial; keys that are missing are drawn.
    """

    def __init__(self, study: optuna.Study, seed: int, space: Space, start: Values) -> None:
        super().__init__(study, space)
        self._seed = seed
        self._start = encoded(space, start)
        self._inner: optuna.samplers.TPESampler

    def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        text = f"{self._seed} {self._study.study_name} {ordinal(self._study, trial)}"
        digest = hashlib.sha256(text.encode()).hexdigest()
        # constant_liar: what other processes train now counts as tried.
        self._inner = optuna.samplers.TPESampler(
            seed=int(digest[:8], 16), multivariate=True, constant_liar=True
        )
        self._inner.before_trial(study, trial)

    def sample_relative(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        if ordinal(self._study, trial) == 0:
            return self._start
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        state: optuna.trial.TrialState,
        values: Any,
    ) -> None:
        """Nothing is kept from one trial to the next."""
