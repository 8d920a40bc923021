"""The space of a search: which keys of a recipe are varied, and between what. No Optuna, no TensorFlow.

As YAML, keys are written as ``-o`` takes them. A list is a choice; a mapping is a range::

    train.optimizer.lr: {low: 0.001, high: 0.1, log: true}
    train.epochs: {low: 10, high: 30, step: 5}
    train.label_smoothing: [0.0, 0.1]
    augment.mixup: [null, {alpha: 0.2}]
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from edgecls import _schema, _yaml
from edgecls._explain import Wrong, usage_error
from edgecls._schema import Section
from edgecls.errors import UsageError
from edgecls.recipe import Recipe

Values = dict[str, Any]
"""A value for each key of a space."""

_MOST_CHECKED = 256
"""Combinations of values that are laid over the recipe before a search begins."""

_AFTER_TRAINING = {"name", "quantize", "export", "bench"}
_SAME_VALIDATION = {"extra", "sampling", "class_weights", "cache", "antialias"}
"""Keys of ``data`` that leave the validation images as they are."""


class Range(Section):
    """A range of numbers, ends included. The whole numbers in it, where the recipe's key takes only those."""

    low: float = Field(description="least value")
    high: float = Field(description="largest value")
    log: bool = Field(
        default=False, description="whether equal ratios are equally likely, not equal differences"
    )
    step: float | None = Field(
        default=None, gt=0, description="distance of the values, from `low` on; null: any value"
    )
    points: int = Field(default=3, ge=2, description="values of a grid, where there is no step")
    whole: bool = Field(default=False, description="whole numbers only; set by the recipe's key")

    @model_validator(mode="after")
    def _is_a_range(self) -> Range:
        if self.low >= self.high:
            raise Wrong(f"low {self.low:g} is not below high {self.high:g}", "high")
        if self.log and self.low <= 0:
            raise Wrong("a logarithmic range begins above 0", "low")
        if self.log and self.step is not None:
            raise Wrong("a logarithmic range has no step", "step", fix="remove one of them")
        if self.whole and any(number % 1 for number in (self.low, self.high, self.step or 1)):
            raise Wrong("this key takes whole numbers", "low", "high", "step")
        return self

    def number(self, value: float) -> float | int:
        """``value`` as the recipe's key takes it."""
        return round(value) if self.whole else float(value)

    @property
    def ends(self) -> list[float | int]:
        """The values that the recipe must take for all between to be taken."""
        return [self.number(self.low), self.number(self.high)]

    @property
    def grid(self) -> list[float | int]:
        """Values for a search that tries all combinations, in ascending order.

        Example:
            >>> Range(low=0.001, high=0.1, log=True).grid
            [0.001, 0.01, 0.1]
        """
        if self.step is not None:
            values = [
                self.low + i * self.step for i in range(int((self.high - self.low) / self.step + 1e-9) + 1)
            ]
        elif self.log:
            ratio = math.log(self.high / self.low) / (self.points - 1)
            values = [float(f"{self.low * math.exp(i * ratio):.6g}") for i in range(self.points)]
            values[0], values[-1] = self.low, self.high
        else:
            width = (self.high - self.low) / (self.points - 1)
            values = [*(self.low + i * width for i in range(self.points - 1)), self.high]
        return list(dict.fromkeys(self.number(value) for value in values))

    def has(self, value: Any) -> bool:
        """Whether a value is in the range."""
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not self.low <= value <= self.high
        ):
            return False
        return self.step is None or math.isclose((value - self.low) / self.step % 1, 0, abs_tol=1e-9)

    def describe(self) -> dict[str, Any]:
        """As it is written in a space."""
        return {
            key: self.number(v) if key in ("low", "high", "step") else v
            for key, v in self.model_dump(exclude={"whole"}, exclude_defaults=True).items()
        }


@dataclass(frozen=True)
class Choices:
    """Values to choose from; each is anything that the recipe's key takes."""

    values: tuple[Any, ...]

    @property
    def ends(self) -> list[Any]:
        """The values that the recipe must take: all."""
        return list(self.values)

    @property
    def grid(self) -> list[Any]:
        """Values for a search that tries all combinations: all."""
        return list(self.values)

    def describe(self) -> list[Any]:
        """As it is written in a space."""
        return list(self.values)


@dataclass(frozen=True)
class Space:
    """Keys of a recipe, what each may be, and where that was written (for error texts)."""

    parameters: Mapping[str, Range | Choices]
    origins: Mapping[str, str]

    def describe(self) -> dict[str, Any]:
        """As it is written, for a person and for JSON."""
        return {key: parameter.describe() for key, parameter in self.parameters.items()}

    @property
    def grid(self) -> list[Values]:
        """All combinations; the last key varies fastest."""
        columns = [parameter.grid for parameter in self.parameters.values()]
        return [dict(zip(self.parameters, row, strict=True)) for row in itertools.product(*columns)]


def read_space(texts: Sequence[str]) -> Space:
    """A space from the command line.

    Args:
        texts: Each a YAML file or ``KEY=SPEC``; a later one replaces an earlier one's key.

    Example:
        >>> read_space(["train.label_smoothing=[0, 0.1]", "seed={low: 0, high: 9}"]).describe()
        {'train.label_smoothing': [0, 0.1], 'seed': {'low': 0, 'high': 9}}

    Raises:
        UsageError: No such file, no YAML, or something that is neither a list nor a range.
    """
    parameters: dict[str, Range | Choices] = {}
    origins: dict[str, str] = {}
    for text in texts:
        tree = _tree(text)
        for key in tree.values:
            parameters[key] = _parameter(key, tree)
            origins[key] = tree.origin((key,)).text
    return Space(parameters, origins)


def _tree(text: str) -> _yaml.Tree:
    key, sign, spec = text.partition("=")
    if Path(text).is_file() or not sign:
        return _yaml.read(Path(text), "space")
    where = f"--space {text}"
    inner = _yaml.parse(spec, where, Path(), lines=False)
    origins = {(key.strip(), *path): origin for path, origin in inner.origins.items()}
    return _yaml.Tree({key.strip(): inner.values}, origins)


def _parameter(key: str, tree: _yaml.Tree) -> Range | Choices:
    spec, where = tree.values[key], tree.origin((key,)).text
    if isinstance(spec, list):
        try:
            different = {json.dumps(value, sort_keys=True) for value in spec}
        except TypeError:
            fix = "quote what looks like a date"
            raise UsageError(
                f"{key}: not all of these are values of a recipe", where=where, fix=fix
            ) from None
        if len(different) < max(2, len(spec)):
            what = "two of its values are equal" if len(spec) > 1 else "one value is nothing to search"
            raise UsageError(f"{key}: {what}", where=where, fix="give two values or more, each once")
        return Choices(tuple(spec))
    if not isinstance(spec, dict) or not {"low", "high"} & spec.keys():
        fix = "write a list of values, or a range: {low: 0.001, high: 0.1, log: true}"
        raise UsageError(f"{key}: neither a list nor a range", where=where, fix=fix)
    if "whole" in spec:
        raise UsageError(f"unknown key '{key}.whole'", where=where, fix="the recipe's key says whether it is")
    try:
        return Range.model_validate({**spec, "whole": _is_whole(key)})
    except ValidationError as error:
        wrong = usage_error(error, tree.below((key,)), Range)
        raise UsageError(f"{key}: {wrong.what}", where=wrong.where or where, fix=wrong.fix) from None


def _is_whole(key: str) -> bool:
    """Whether a key of the recipe takes whole numbers only."""
    found = [_schema.members(k.info.annotation) for k in _schema.keys(Recipe) if k.dotted == key]
    return bool(found) and all(int in types and float not in types for types in found)


def default_space(recipe: Recipe) -> Space:
    """The keys that the manual searches: learning rate, L2, label smoothing and mixup, around those of the recipe.

    What the recipe's training does not use is left out: keys that each phase sets anew, and label smoothing where the
    labels do not count (``distill.hard_weight: 0``).

    Example:
        >>> list(default_space(load_recipe("mv3_ssld")).parameters)  # doctest: +SKIP
        ['train.optimizer.lr', 'train.optimizer.weight_decay', 'train.label_smoothing', 'augment.mixup']
    """
    train = recipe.train
    lr, decay, smoothing = train.optimizer.lr, train.optimizer.weight_decay, train.label_smoothing
    mixup = recipe.augment.mixup
    specs: dict[str, Range | Choices] = {
        "train.optimizer.lr": Range(low=lr / 5, high=lr * 5, log=True),
        "train.optimizer.weight_decay": Range(low=min(1e-6, decay), high=max(1e-3, decay), log=True)
        if decay
        else Choices((0.0, 1e-5, 1e-4, 1e-3)),
        "train.label_smoothing": Choices(tuple(sorted({0.0, 0.1, smoothing}))),
        "augment.mixup": Choices((None, mixup.model_dump() if mixup else {"alpha": 0.2})),
    }
    if all(part.recipe.distill and not part.recipe.distill.hard_weight for part in recipe.parts):
        del specs["train.label_smoothing"]
    kept = {key: spec for key, spec in specs.items() if _has_effect(recipe, {}, key, spec.ends)}
    return Space(kept, dict.fromkeys(kept, "the default space"))


def applied(recipe: Recipe, values: Values) -> Recipe:
    """The recipe with values laid over it, as ``-o`` does.

    A section comes before its keys, and the ``name`` that tells what a section is before its other keys.

    Raises:
        UsageError: The recipe refuses one of them; ``where`` is ``-o KEY=VALUE``.
    """
    return recipe.override(override_texts(values))


def override_texts(values: Values) -> list[str]:
    """Values as texts ``KEY=VALUE`` in the order in which they must be laid over a recipe; JSON is YAML."""
    keys = sorted(values, key=lambda key: (key.count("."), not key.endswith(".name")))
    return [f"{key}={json.dumps(values[key])}" for key in keys]


def check_space(recipe: Recipe, space: Space) -> list[Recipe]:
    """Refuse keys and values that the recipe does not take, and keys that a search cannot use.

    Returns:
        Recipes in which each end of each range and each choice occurs, the first values of all keys first.

    Raises:
        UsageError: One line with the place in the space.
    """
    if not space.parameters:
        fix = "name keys with --space, for example --space 'train.optimizer.lr={low: 0.001, high: 0.1, log: true}'"
        raise UsageError("there is nothing to search", fix=fix)
    for key in space.parameters:
        section, _, name = key.partition(".")
        if section == "data" and name.partition(".")[0] not in _SAME_VALIDATION:
            fix = "search other keys"
            what = f"{key} may change the validation images, and trials are compared on the same ones"
            raise UsageError(what, where=space.origins[key], fix=fix)
    first, *others = _one_at_a_time(space)
    found = [_checked(recipe, values, space) for values in (first, *others)]
    for values in itertools.islice(_combinations(space), _MOST_CHECKED):
        _checked(recipe, values, space)
    for key, parameter in space.parameters.items():
        if not _has_effect(recipe, first, key, parameter.ends):
            what = f"{key} changes nothing in the training of the float network"
            fix = "remove it: only the float training is searched, and a phase's own key counts in that phase"
            raise UsageError(what, where=space.origins[key], fix=fix)
    return found


def _one_at_a_time(space: Space) -> Iterator[Values]:
    """The first values of all keys, and then each other value with the first ones of the other keys."""
    first = {key: parameter.ends[0] for key, parameter in space.parameters.items()}
    yield first
    for key, parameter in space.parameters.items():
        yield from (first | {key: value} for value in parameter.ends[1:])


def _combinations(space: Space) -> Iterator[Values]:
    columns = [parameter.ends for parameter in space.parameters.values()]
    return (dict(zip(space.parameters, row, strict=True)) for row in itertools.product(*columns))


def _checked(recipe: Recipe, values: Values, space: Space) -> Recipe:
    try:
        return applied(recipe, values)
    except UsageError as error:
        key = error.where.removeprefix("-o ").partition("=")[0]
        where = space.origins.get(key, error.where)
        raise UsageError(error.what, where=where, fix=error.fix) from None


def _has_effect(recipe: Recipe, values: Values, key: str, ends: Sequence[Any]) -> bool:
    trainings = [_trainings(applied(recipe, values | {key: end})) for end in ends]
    return any(training != trainings[0] for training in trainings)


def _trainings(recipe: Recipe) -> list[dict[str, Any]]:
    """What the float trainings of a recipe depend on."""
    return [part.recipe.model_dump(exclude=_AFTER_TRAINING) for part in recipe.parts]


def start_values(recipe: Recipe, space: Space) -> Values:
    """The recipe's own values, of the keys whose range or choices have them: what a search tries first."""
    found: Values = {}
    for key, parameter in space.parameters.items():
        if isinstance(parameter, Range):
            value = _value(recipe, key)
            if parameter.has(value):
                found[key] = parameter.number(value)
            continue
        if same := [value for value in parameter.values if _is_own(recipe, key, value)]:
            found[key] = same[0]
    return found


def _is_own(recipe: Recipe, key: str, value: Any) -> bool:
    try:
        return applied(recipe, {key: value}) == recipe
    except UsageError:  # alone it may not fit the others of the recipe
        return False


def _value(recipe: Recipe, dotted: str) -> Any:
    value: Any = recipe.model_dump()
    for name in dotted.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
