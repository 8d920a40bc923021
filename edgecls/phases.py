"""Phases: a training of the student in several parts, each a recipe of its own that starts from the one before.

A phase is a name and the keys that it changes. It is trained as the whole recipe with these changes laid over it, so
phases do not depend on each other's keys, only on the weights that the one before has left.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from edgecls import _yaml
from edgecls._explain import Wrong
from edgecls._schema import PartOf, Section
from edgecls.data.settings import Data

if TYPE_CHECKING:
    from edgecls.recipe import Recipe

STUDENT = "student"
"""The stage that trains the student, or the first part of the names of its phases' stages: ``student.NAME``."""

NETWORK = "float.keras"
"""What the last phase writes; the others write ``phases/NAME.keras``."""

Changes = dict[str, Any]


class Phase(Section):
    """A part of the training."""

    PIXELS: ClassVar = ("input_size", "resize_short")  # all that it can change of the model
    KEPT: ClassVar = (
        "classes",
        "test_path",
        "test_fraction",
    )  # of data: the network and its test stay the same

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$",
        max_length=40,
        description="name of the phase: its stage is `student.NAME`; its random numbers depend on it",
    )
    model: Changes = Field(default={}, description="`input_size` and `resize_short` of this phase")
    data: Annotated[Changes, PartOf(Data)] = Field(
        default={}, description="keys of `data` that it changes, but for the classes and the test images"
    )
    augment: Changes = Field(default={}, description="keys of `augment` that it changes")
    train: Changes = Field(default={}, description="keys of `train` that it changes")
    distill: Changes | None = Field(
        default={}, description="keys of `distill` that it changes; null: this phase learns from labels alone"
    )

    @model_validator(mode="after")
    def _stays_the_same_network(self) -> Phase:
        for key in self.model.keys() - set(self.PIXELS):
            fix = f"a phase can change {' and '.join(self.PIXELS)} of the model"
            raise Wrong(f"a phase cannot change model.{key}", f"model.{key}", fix=fix)
        for key in self.data.keys() & set(self.KEPT):
            fix = f"set data.{key} for the whole recipe: all phases have the same classes and test images"
            raise Wrong(f"a phase cannot change data.{key}", f"data.{key}", fix=fix)
        return self

    def distills(self, as_a_rule: bool) -> bool:
        """Whether a teacher is learned from, if the recipe says so ``as_a_rule``."""
        return self.distill is not None if "distill" in self.model_fields_set else as_a_rule

    @model_serializer(mode="wrap")
    def _what_is_written(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Only the sections that the phase has: one that is not written is not changed, which an empty one may be."""
        return {key: value for key, value in dump(self).items() if key in self.model_fields_set}


@dataclass(frozen=True)
class Part:
    """A training of the student as it is done: a phase, or all of the training of a recipe without phases.

    Attributes:
        stage: ``student.NAME``, or ``student``.
        section: Where its ``train`` section stands in the recipe, for error texts.
        recipe: Everything about it, as a recipe without phases. Its seed is of the phase's name.
        before: The network it starts from, relative to the run; None: the recipe's weights.
        network: The network it writes, relative to the run.
    """

    stage: str
    section: str
    recipe: Recipe
    before: str | None
    network: str

    @property
    def is_last(self) -> bool:
        """Whether it makes the run's float network."""
        return self.network == NETWORK


def stages(names: Sequence[str]) -> list[str]:
    """The stages that train the student, in their order.

    Example:
        >>> stages(["large", "fix"]), stages([])
        (['student.large', 'student.fix'], ['student'])
    """
    return [f"{STUDENT}.{name}" for name in names] or [STUDENT]


def parts(recipe: Recipe, kinds: Set[_yaml.Key]) -> list[Part]:
    """The student's trainings, in their order; each begins with what the one before has left.

    Args:
        recipe: Of which the phases are known to be good.
        kinds: See ``Tree.merge``.
    """
    if not recipe.phases:
        return [Part(STUDENT, "train", recipe, None, NETWORK)]
    tree = _yaml.Tree(recipe.model_dump())
    resolved = [recipe.model_validate(each.values) for each in laid_over(tree, kinds)]
    names = [phase.name for phase in recipe.phases]
    networks = [*(f"phases/{name}.keras" for name in names[:-1]), NETWORK]
    sections = [f"{place(i)}.train" for i in range(len(names))]
    return [
        Part(*each)
        for each in zip(stages(names), sections, resolved, [None, *networks[:-1]], networks, strict=True)
    ]


def place(index: int) -> str:
    """A phase in an error text: ``phases[1]``."""
    return f"phases[{index}]"


def laid_over(tree: _yaml.Tree, kinds: Set[_yaml.Key]) -> Iterator[_yaml.Tree]:
    """The whole recipe of each phase: what ``tree`` says without phases, and the phase's changes over it.

    What is only used after the float training is left to the last phase. A phase that does not distill has no teacher.

    Args:
        tree: A resolved recipe, with every key; its ``phases`` may be empty.
        kinds: See ``Tree.merge``.
    """
    count = len(tree.values["phases"])
    for index in range(count):
        phase = tree.below(("phases", index))
        name = phase.values.pop("name")
        whole = copy.deepcopy(tree)
        whole.merge(phase, kinds)
        whole.values |= {"phases": [], "seed": _seed(whole.values["seed"], name)}
        for section in ("quantize", "export", "bench") if index < count - 1 else ():
            del whole.values[section]
        if whole.values["distill"] is None:
            whole.values["teacher"] = None
        yield whole


def _seed(seed: int, name: str) -> int:
    """A seed of its own for each phase: two phases do not see the same crops in the same order."""
    return int(hashlib.sha256(f"{seed} {name}".encode()).hexdigest()[:8], 16) % 2**31
