"""The recipe: one strict, typed YAML file that says everything about a run.

A key that does not exist, a value of another type or a number out of range is an error with its file, line and key.
``base: NAME`` (or a list, later ones win) starts from other recipes: files beside this one, or recipes that come with
the package, by name. ``-o train.optimizer.lr=0.1`` changes one key from the command line, ``-o phases.large.train.epochs=5``
one of the phase ``large``. Mappings merge key by key, lists and single values are replaced.

Relative paths (``data.path``, ``model.weights``, ...) start from the current folder if they exist there, else from the
folder of the file they are written in; a resolved recipe holds absolute paths.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from edgecls import _load, _schema, _yaml, phases
from edgecls._explain import Wrong, usage_error
from edgecls._load import find_recipe, recipe_names
from edgecls._schema import Section
from edgecls.augment.settings import Augment
from edgecls.data.settings import Data, Extra
from edgecls.errors import UsageError
from edgecls.networks import RANDOM, Model, OtherTeacher, Teacher
from edgecls.phases import Part, Phase
from edgecls.precisions import Precision, Ranges, WeightScales, find
from edgecls.train.distill import Distill
from edgecls.train.multipliers import check_stages
from edgecls.train.optimizers import Sgd
from edgecls.train.settings import Train
from edgecls.zoo import catalog

__all__ = [
    "RANDOM",
    "Augment",
    "Bench",
    "Data",
    "Distill",
    "Export",
    "Extra",
    "Model",
    "OtherTeacher",
    "Part",
    "Phase",
    "Quantize",
    "Recipe",
    "Section",
    "Teacher",
    "Train",
    "find_recipe",
    "load_recipe",
    "recipe_names",
]

_AFTER_TRAINING = {"quantize", "export", "bench"}


# A trained network whose batch statistics are kept is as if its kernels were large: without the limit some leap away.
QAT_OPTIMIZER = Sgd(lr=0.0002, clip_norm=1.0)


class Quantize(Section):
    """Quantization, which starts from the float network."""

    train: Train | None = Field(
        default=Train(epochs=3, optimizer=QAT_OPTIMIZER),
        description="training with int8 arithmetic; null: none, ranges and biases from calibration alone",
    )
    calibration_images: int = Field(
        default=256, ge=1, description="training images that the first ranges are measured on"
    )
    weights: WeightScales = Field(
        default="per_channel",
        description="scales of a kernel: one for each output channel, or one (`per_tensor`), as some accelerators want"
        " it; then batch normalizations are folded before the training",
    )
    ranges: Ranges = Field(
        default="mse",
        description="how the ranges of activations are measured: with the least squared error (`mse`), all but 0.01 % at"
        " either end (`percentile`), or the extremes (`minmax`)",
    )
    keep_float: list[str] = Field(
        default=[], description="layers that stay in float: names, or shell patterns such as `block_1_*`"
    )
    equalize: bool = Field(
        default=False,
        description="give the channels of consecutive kernels equal ranges first (cross-layer equalization), for"
        " `weights: per_tensor`; batch normalizations are folded before the training",
    )
    adaround: bool = Field(
        default=False,
        description="learn for each weight whether it is rounded up or down, before the training if there is one; takes"
        " minutes or more",
    )
    distill: Literal["float", "teacher", "none"] = Field(
        default="float",
        description="what it learns: the answers of the float network, so that int8 says the same; those of the"
        " teacher, as the float network did; or the labels alone (`none`)",
    )
    freeze_bn_epoch: int | None = Field(
        default=0,
        ge=0,
        description="epoch, from 0, at which the statistics of batch normalization are frozen; null: never",
    )
    freeze_ranges_epoch: int | None = Field(
        default=0,
        ge=0,
        description="epoch, from 0, at which the ranges of activations are frozen: until then they follow the largest and"
        " the smallest value of each batch; null: never",
    )
    learn_ranges: bool = Field(
        default=False,
        description="train the ranges of activations with the weights, by the values that they cut off",
    )

    @model_validator(mode="after")
    def _rounds_as_the_file_does(self) -> Quantize:
        if self.train and self.train.precision != "float32":
            text = "quantization-aware training computes in float32, so that it rounds as the int8 file does"
            raise Wrong(text, "train.precision", fix="leave precision out")
        return self


class Export(Section):
    """The files for the phone."""

    precisions: list[Annotated[Precision, BeforeValidator(find)]] = Field(
        default=["fp32", "int8"], min_length=1, description="arithmetic of the files, one file for each"
    )
    output: Literal["float", "uint8"] = Field(
        default="float", description="type of the scores that the int8 file gives; uint8 ones are logits"
    )
    scores: Literal["softmax", "logits"] = Field(
        default="softmax",
        description="what the files give: probabilities, which apps show as they come, or logits",
    )


class Bench(Section):
    """How latency is measured."""

    device: str = Field(
        default="host", description="`host` (this computer), a chip such as `sd855`, or a device's name"
    )
    threads: list[Annotated[int, Field(ge=1, le=64)]] = Field(
        default=[1, 2], min_length=1, description="numbers of threads, each measured on its own"
    )
    warmup: int = Field(default=10, ge=0, description="runs before those that are measured")
    runs: int = Field(default=30, ge=1, description="measured runs in a round")
    rounds: int = Field(default=5, ge=1, description="rounds; the files take turns in each")


class Recipe(Section):
    """Everything about a run, resolved."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        max_length=100,
        description="name of the run: its folder in `runs/`",
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**31,
        description="of the first weights, the order of the images and their random changes; the test split does"
        " not depend on it",
    )
    model: Model = Field(description="the network that will run on the phone")
    teacher: Teacher | None = Field(default=None, description="the network that the model learns from")
    data: Data = Field(description="the images and how they are split")
    augment: Augment = Field(default=Augment(), description="random changes of the training images")
    train: Train = Field(default=Train(), description="training of the float network")
    phases: list[Phase] = Field(
        default=[],
        description="parts of the training in their order, each from the weights of the one before; empty: one part."
        " Each changes keys of the sections below (`docs/train.md`)",
    )
    distill: Distill | None = Field(default=None, description="how the model learns from the teacher")
    quantize: Quantize = Field(default=Quantize(), description="quantization-aware training")
    export: Export = Field(default=Export(), description="the files for the phone")
    bench: Bench = Field(default=Bench(), description="how latency is measured")

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.name == "latest":
            raise Wrong("name 'latest' is taken: runs/latest points to the newest run", "name")
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise Wrong("two phases have one name", "phases", fix="give each a name of its own")
        if not names:
            return self._complete()  # of phases each is checked on its own
        if self.teacher and not any(phase.distills(self.distill is not None) for phase in self.phases):
            fix = "add a distill section (distill: {}), or remove the teacher (teacher: null)"
            raise Wrong("the teacher would not be used: no phase distills", "distill", "phases", fix=fix)
        return self

    def _complete(self) -> Recipe:
        """Check what a training needs of other sections."""
        if self.distill is not None and self.teacher is None:
            fix = "add a teacher section, or remove distill (distill: null)"
            raise Wrong("distill needs a teacher", "teacher", "distill", fix=fix)
        if self.teacher is not None and self.distill is None:
            fix = "add a distill section (distill: {}), or remove the teacher (teacher: null)"
            raise Wrong("the teacher would not be used: distill is missing", "distill", "teacher", fix=fix)
        if self.teacher is not None and self.distill is not None:
            self._has_teachers(self.teacher, self.distill)
        if self.quantize.distill == "teacher" and (self.distill is None or self.distill.mutual):
            fix = "add both, or set it to float" if self.distill is None else "set it to float"
            why = (
                "needs a teacher and a distill section" if self.distill is None else "needs a trained teacher"
            )
            raise Wrong(f"quantize.distill: teacher {why}", "quantize.distill", fix=fix)
        return self

    @model_validator(mode="after")
    def _stages_are_there(self) -> Recipe:
        trainings: dict[str, tuple[Model | OtherTeacher, Train]] = {
            "train": (self.model, self.train),
        }
        if self.quantize.train is not None:
            trainings["quantize.train"] = (self.model, self.quantize.train)
        for place, teacher in enumerate(self.teacher.all if self.teacher is not None else []):
            if teacher.train is not None:
                key = f"teacher.others.{place - 1}.train" if place else "teacher.train"
                trainings[key] = (teacher, teacher.train)
        for section, (network, train) in trainings.items():
            entry = catalog.find(network.name or "")
            if entry is None:
                continue  # told elsewhere, of a file when it is opened
            try:
                check_stages(entry, train.lr_mult_list, train.freeze)
            except UsageError as error:
                key = f"{section}.{error.where}"
                raise Wrong(f"{key}: {error.what}", key, fix=error.fix) from None
        return self

    @staticmethod
    def _has_teachers(teacher: Teacher, distill: Distill) -> None:
        """Check that there are answers to learn."""
        if distill.mutual and (teacher.train is not None or teacher.others):
            fix = "remove it: the second student trains as the first does"
            key = "teacher.train" if teacher.train is not None else "teacher.others"
            raise Wrong("with distill.mutual the teacher is a second student", key, "distill.mutual", fix=fix)
        for place, one in enumerate([] if distill.mutual else teacher.all):
            if not one.has_learned:
                key = f"teacher.others[{place - 1}]" if place else "teacher"
                raise Wrong(
                    f"{key}: without weights and without train its answers are random",
                    "teacher.others" if place else "teacher",
                    fix="add weights (a file or a pretraining) or a train section",
                )

    @property
    def parts(self) -> list[Part]:
        """The student's trainings in their order: the phases, or the whole training where there are none."""
        return phases.parts(self, _kinds())

    @property
    def final(self) -> Recipe:
        """The recipe of the last phase: its pixels and data are those of all that comes after the training."""
        return self.parts[-1].recipe

    @property
    def teachers(self) -> dict[str, OtherTeacher]:
        """The networks that answer, by the names of their stages; a second student (``distill.mutual``) is not one."""
        sections = [part.recipe.distill for part in self.parts]
        if self.teacher is None or not any(section and not section.mutual for section in sections):
            return {}
        return {f"teacher.{k}" if k > 1 else "teacher": each for k, each in enumerate(self.teacher.all, 1)}

    def dump(self) -> str:
        """The resolved recipe as YAML; ``load_recipe`` of it gives an equal recipe."""
        return _yaml.dump(self.model_dump())

    def override(self, overrides: Sequence[str]) -> Recipe:
        """This recipe with ``a.b=value`` laid over it, checked as in ``load_recipe``."""
        return _resolve(_yaml.Tree(self.model_dump()), overrides)

    def hash(self) -> str:
        """SHA-256 of the resolved recipe: equal recipes, equal text."""
        return _sha256(self.model_dump())

    def training_hash(self) -> str:
        """SHA-256 of the resolved recipe without the sections that are only used after the float training.

        Two recipes with the same value train the same float network, whatever they say about ``quantize``,
        ``export`` and ``bench``.
        """
        return _sha256(self.model_dump(exclude=_AFTER_TRAINING))


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe with its bases and overrides.

    Args:
        path: The YAML file, or the name of a recipe that comes with the package (see ``find_recipe``).
        overrides: Texts ``a.b=value``; the value is YAML.

    Example:
        >>> load_recipe("mv3_ssld", ["train.epochs=5"]).train.epochs
        5

    Raises:
        UsageError: One line with file and line (or the override), key, what was received and what was expected.
    """
    return _resolve(_load.read(find_recipe(path), _kinds()), overrides)


def _resolve(tree: _yaml.Tree, overrides: Sequence[str]) -> Recipe:
    tree.values.setdefault("phases", [])  # so that an override of a phase is told that there is none
    _load.override(tree, overrides, _kinds())
    try:
        recipe = Recipe.model_validate(_load.absolute(Recipe, tree))
    except ValidationError as error:
        raise usage_error(error, tree, Recipe) from None
    _check_network("model", recipe.model, tree)
    for place, teacher in enumerate(recipe.teacher.all if recipe.teacher is not None else []):
        _check_network("teacher" if place == 0 else f"teacher.others[{place - 1}]", teacher, tree)
    resolved = _yaml.Tree(recipe.model_dump(), tree.origins)
    for index, whole in enumerate(phases.laid_over(resolved, _kinds())):
        try:
            Recipe.model_validate(whole.values)
        except ValidationError as error:
            raise usage_error(error, whole, Recipe, above=("phases", index)) from None
    return recipe


@functools.cache
def _kinds() -> frozenset[tuple[str, ...]]:
    return _schema.tagged(Recipe)


def _check_network(section: str, network: Model | OtherTeacher, tree: _yaml.Tree) -> None:
    try:
        catalog.get(network.name) if network.name is not None else None
    except catalog.UnknownModelError as error:
        raise UsageError(f"{section}.name: {error}", where=tree.origin((section, "name")).text) from None


def _sha256(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
