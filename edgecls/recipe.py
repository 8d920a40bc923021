"""The recipe: one strict, typed YAML file that says everything about a run.

A key that does not exist, a value of another type or a number out of range is an error with its file, line and key.
``base: other.yaml`` (or a list, later ones win) starts from other files; ``-o train.optimizer.lr=0.1`` changes one
key from the command line. Mappings merge key by key, lists and single values are replaced.

Relative paths (``data.path``, ``model.weights``, ...) start from the folder of the file they are written in, unless
they exist relative to the current folder, which then wins; a resolved recipe holds absolute paths.
"""

from __future__ import annotations

import hashlib
import json
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgecls import _yaml
from edgecls._explain import is_union, section_of, usage_error
from edgecls.errors import UsageError
from edgecls.zoo import catalog

_PATH = "path"  # marks a field as a path on disk
FilePath = Annotated[str, _PATH]
Range = Annotated[list[float], Field(min_length=2, max_length=2)]
Channels = Annotated[list[float], Field(min_length=3, max_length=3)]
Precision = Literal["fp32", "fp16", "int8"]
Fraction = Annotated[float, Field(ge=0, lt=1)]
_AFTER_TRAINING = {"quantize", "export", "bench"}


class Section(BaseModel):
    """A part of a recipe: no unknown keys, no silent conversions, immutable.

    A section may set defaults for a section inside it, for example ``train: Train = Train(epochs=3)``. They hold for
    every key of the inner section that is not written, also when other keys of it are.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keep_defaults_of_place(cls, written: Any) -> Any:
        """Lay what is written over the defaults that this section sets for the sections inside it."""
        if not isinstance(written, dict):
            return written
        result = dict(written)
        for name, info in cls.model_fields.items():
            if isinstance(info.default, Section) and isinstance(written.get(name), dict):
                result[name] = _merged(info.default.model_dump(exclude_unset=True), written[name])
        return result


class Model(Section):
    """The network that will run on the phone."""

    name: str = Field(description="name in the catalog, as `edgecls models` lists it")
    weights: FilePath | None = Field(
        default=None, description='first weights: a file, or "imagenet"; null: random'
    )
    input_size: int | None = Field(
        default=None, ge=32, le=4096, description="side of the input, pixels; null: the catalog's"
    )
    resize_short: int | None = Field(
        default=None,
        ge=8,
        le=8192,
        description="short side before the centre crop, pixels; null: scaled from the catalog's",
    )
    mean: Channels | None = Field(default=None, description="RGB mean of x/255; null: the catalog's")
    std: Channels | None = Field(default=None, description="RGB deviation of x/255; null: the catalog's")
    dropout: Fraction | None = Field(
        default=None, description="drop rate before the classifier; null: the network's own"
    )
    embedding_dim: int | None = Field(
        default=None, ge=1, description="width of a layer before the classifier; null: none"
    )
    acnet: bool = Field(
        default=False,
        description="train each convolution larger than 1x1 as the sum of a square, a vertical and a horizontal"
        " one (ACNet); the files have one",
    )


class Optimizer(Section):
    """How weights move."""

    name: Literal["sgd", "adam"] = "sgd"
    lr: float = Field(default=0.05, gt=0, description="top learning rate, for the given batch size")
    momentum: Fraction = Field(default=0.9, description="SGD momentum")
    nesterov: bool = False
    weight_decay: float = Field(default=1e-4, ge=0, description="L2 factor added to the gradient (coupled)")
    clip_norm: float | None = Field(
        default=None, gt=0, description="limit of the gradient's global norm; null: none"
    )


class Schedule(Section):
    """How the learning rate moves."""

    name: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: float = Field(default=0.0, ge=0, description="epochs of linear growth from 0")


class Train(Section):
    """One training phase."""

    epochs: int = Field(default=10, ge=1, description="passes over the training split")
    batch_size: int = Field(default=32, ge=1, description="images a step, over all devices")
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    label_smoothing: Fraction = Field(default=0.0, description="share of the target spread over all classes")
    select: Literal["best", "last"] = Field(
        default="best", description="checkpoint kept: best on validation, or last"
    )
    bn_momentum: Fraction | None = Field(
        default=None,
        description="weight of the old batch-normalisation statistics at each step; null: the network's own,"
        " which is made for long trainings",
    )
    ema_decay: Fraction | None = Field(
        default=None, description="decay a step of the averaged weights; null: no average"
    )


class Teacher(Section):
    """The network that is distilled from. Without ``train`` it is used as ``weights`` has it."""

    name: str = Field(description="name in the catalog")
    weights: FilePath | None = Field(
        default=None, description='a file (.keras, .pdparams, ...), or "imagenet"'
    )
    input_size: int | None = Field(default=None, ge=32, le=4096, description="pixels; null: the student's")
    mean: Channels | None = Field(default=None, description="RGB mean of x/255; null: the catalog's")
    std: Channels | None = Field(default=None, description="RGB deviation of x/255; null: the catalog's")
    dropout: Fraction | None = Field(
        default=None, description="drop rate before the classifier; null: the network's own"
    )
    acnet: bool = Field(default=False, description="as model.acnet")
    train: Train | None = Field(default=None, description="fine-tuning of the teacher; null: none")


class Data(Section):
    """Where photos and labels come from and how they are split."""

    source: Literal["folder", "list", "idx", "elpv"] = Field(
        default="folder",
        description="a folder a class; a text file `path label`; IDX; or the built-in solar cells",
    )
    path: FilePath | None = Field(default=None, description="folder or file of the training photos")
    val_path: FilePath | None = Field(
        default=None, description="the validation photos; null: split off the training ones"
    )
    test_path: FilePath | None = Field(
        default=None, description="the test photos; null: split off first, always the same"
    )
    labels: FilePath | None = Field(
        default=None, description="label file: IDX labels, or a class name a line"
    )
    classes: list[str] | int | None = Field(
        default=None, description="names or number of classes; null: as found"
    )
    test_fraction: Fraction = Field(default=0.25, description="share split off for testing, stratified")
    val_fraction: Fraction = Field(
        default=0.1, description="share of the rest split off for validation, stratified"
    )
    class_weights: Literal["none", "balanced"] = "none"
    max_bad_fraction: float = Field(
        default=0.01, ge=0, le=1, description="unreadable images allowed before stopping"
    )
    cache: bool = Field(default=True, description="keep decoded images in memory where they fit")

    @model_validator(mode="after")
    def _has_path(self) -> Data:
        if self.source != "elpv" and self.path is None:
            raise ValueError(f"source {self.source!r} needs path")
        if isinstance(self.classes, int) and self.classes < 2:
            raise ValueError("classes must be at least 2")
        if isinstance(self.classes, list):
            if len(self.classes) < 2:
                raise ValueError("classes must name at least 2 classes")
            if len(set(self.classes)) < len(self.classes):
                raise ValueError("classes has a name twice")
        return self


class Augment(Section):
    """Random changes of training images."""

    crop_scale: Range | None = Field(
        default=[0.5, 1.0], description="area of the random crop, share of the photo; null: off"
    )
    crop_ratio: Range = Field(default=[0.75, 4 / 3], description="width / height of the random crop")
    flip: Literal["none", "horizontal", "vertical", "both"] = "horizontal"
    rotate90: bool = Field(default=False, description="turn by a random multiple of 90 degrees")
    mixup_alpha: float = Field(default=0.0, ge=0, description="Beta(a, a) of mixup; 0: off")

    @model_validator(mode="after")
    def _ordered(self) -> Augment:
        for key, value, top in (("crop_scale", self.crop_scale, 1.0), ("crop_ratio", self.crop_ratio, 100.0)):
            if value is not None and not 0 < value[0] <= value[1] <= top:
                raise ValueError(f"{key} must be [low, high] with 0 < low <= high <= {top:g}, got {value}")
        return self


class Distill(Section):
    """Learning from the teacher's answers (SSLD)."""

    loss: Literal["js"] = "js"
    weight: float = Field(default=1.0, ge=0, description="factor of the distillation loss")
    hard_weight: float = Field(default=0.0, ge=0, description="factor of cross-entropy with the labels")
    teacher_bn: Literal["train", "infer"] = Field(
        default="train",
        description="batch normalisation of the teacher: by the batch's statistics, or its own",
    )
    temperature: float = Field(default=1.0, gt=0, description="divides both logits")


class Quantize(Section):
    """Quantisation-aware training from the float checkpoint."""

    train: Train = Train(epochs=3, optimizer=Optimizer(lr=0.002), schedule=Schedule(warmup_epochs=0.0))
    calibration_images: int = Field(
        default=256, ge=1, description="training images that set the first ranges"
    )
    distill: Literal["float", "teacher", "none"] = Field(
        default="float",
        description="whose answers it learns: the float network's, so that int8 says what float says; the"
        " teacher's, as the float network did; or the labels alone",
    )
    freeze_bn_epoch: int | None = Field(
        default=0, ge=0, description="epoch from which batch statistics stay; null: never"
    )
    freeze_ranges_epoch: int | None = Field(
        default=1, ge=0, description="epoch from which ranges stay; null: never"
    )


class Export(Section):
    """The files for the phone."""

    precisions: list[Precision] = Field(default=["fp32", "int8"], min_length=1)
    output: Literal["float", "uint8"] = Field(
        default="float", description="type of the logits of the int8 file"
    )


class Bench(Section):
    """How latency is measured."""

    device: str = Field(default="host", description='"host", a profile such as "sd855", or a device\'s name')
    threads: list[Annotated[int, Field(ge=1, le=64)]] = Field(default=[1, 2], min_length=1)
    warmup: int = Field(default=10, ge=0, description="runs before measuring")
    runs: int = Field(default=30, ge=1, description="measured runs a round")
    rounds: int = Field(default=5, ge=1, description="rounds, models taking turns")


class Recipe(Section):
    """Everything about a run, resolved."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100, description="folder under runs/"
    )
    seed: int = Field(
        default=0, ge=0, lt=2**31, description="of weights, order and augmentation; never of the test split"
    )
    model: Model
    teacher: Teacher | None = None
    data: Data
    augment: Augment = Augment()
    train: Train = Train()
    distill: Distill | None = None
    quantize: Quantize = Quantize()
    export: Export = Export()
    bench: Bench = Bench()

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.name == "latest":
            raise ValueError("name 'latest' is taken: runs/latest points to the newest run")
        if self.distill is not None and self.teacher is None:
            raise ValueError("distill needs a teacher")
        if self.quantize.distill == "teacher" and self.distill is None:
            raise ValueError("quantize.distill: teacher needs a teacher and a distill section")
        return self

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
        path: The YAML file.
        overrides: Texts ``a.b=value``; the value is YAML.

    Raises:
        UsageError: One line with file and line (or the override), key, what was received and what was expected.
    """
    return _resolve(_with_bases(Path(path), ()), overrides)


def _resolve(tree: _yaml.Tree, overrides: Sequence[str]) -> Recipe:
    for text in overrides:
        tree.merge(_override(text, tree))
    try:
        recipe = Recipe.model_validate(_absolute(Recipe, tree, tree.values, ()))
    except ValidationError as error:
        raise usage_error(error, tree, Recipe) from None
    _known("model", recipe.model, tree)
    if recipe.teacher is not None:
        _known("teacher", recipe.teacher, tree)
    return recipe


def _known(section: str, network: Model | Teacher, tree: _yaml.Tree) -> None:
    try:
        catalog.get(network.name)
    except catalog.UnknownModelError as error:
        raise UsageError(f"{section}.name: {error}", where=tree.origin((section, "name")).text) from None


def _with_bases(path: Path, above: tuple[Path, ...]) -> _yaml.Tree:
    if path.resolve() in above:
        chain = " -> ".join(p.name for p in (*above, path.resolve()))
        raise UsageError(f"base goes in a circle: {chain}", where=str(path))
    own = _yaml.read(path)
    where = own.origin(("base",)).text
    bases = own.values.pop("base", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(b, str) for b in bases):
        raise UsageError("base: expected a file name or a list of them", where=where)
    tree = _yaml.Tree()
    for base in bases:
        file = path.parent / Path(base).expanduser()
        if not file.is_file():
            raise UsageError(
                f"base: no such recipe: {base}", where=where, fix="base is relative to this file"
            )
        tree.merge(_with_bases(file, (*above, path.resolve())))
    tree.origins[()] = own.origin(())  # a missing key is missing from the file that was given
    tree.merge(own)
    return tree


def _override(text: str, onto: _yaml.Tree) -> _yaml.Tree:
    where = f"-o {text}"
    dotted, sign, value = text.partition("=")
    names = dotted.strip().split(".")
    if not sign or not all(names):
        raise UsageError("an override is KEY=VALUE", where=where, fix="for example -o train.epochs=5")
    parent: Any = onto.values
    for i, name in enumerate(names[:-1], 1):
        parent = parent.get(name) if isinstance(parent, dict) else None
        if isinstance(parent, list):
            raise UsageError(f"{'.'.join(names[:i])} is a list: set it whole", where=where)
    parsed = _yaml.parse(value, where, Path.cwd(), lines=False)
    tree = _yaml.Tree(parsed.values if value.strip() else None)  # type: ignore[arg-type]
    for name in reversed(names):
        tree.values = {name: tree.values}
    origin = _yaml.Origin(where, Path.cwd())
    keys = [tuple(names[:i]) for i in range(1, len(names) + 1)]
    tree.origins = dict.fromkeys([*keys, *((*names, *key) for key in parsed.origins if key)], origin)
    return tree


def _absolute(section: type[BaseModel], tree: _yaml.Tree, values: Any, at: _yaml.Key) -> Any:
    """``values`` with every path field made absolute (see the module's text)."""
    if not isinstance(values, dict):
        return values
    result = dict(values)
    for name, info in section.model_fields.items():
        value, key = values.get(name), (*at, name)
        inner = section_of(info.annotation)
        if inner is not None:
            result[name] = _absolute(inner, tree, value, key)
        elif isinstance(value, str) and _PATH in _metadata(info) and value != "imagenet":
            path = Path(value).expanduser()
            result[name] = str(
                path.absolute() if path.exists() else (tree.origin(key).folder / path).resolve()
            )
    return {name: result[name] for name in values}


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``above`` laid over ``below``; mappings merge key by key."""
    result = {**below, **above}
    for name in below.keys() & above.keys():
        if isinstance(below[name], dict) and isinstance(above[name], dict):
            result[name] = _merged(below[name], above[name])
    return result


def _sha256(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _metadata(info: Any) -> list[Any]:
    """Annotations of a field, those inside ``X | None`` included."""
    inner = typing.get_args(info.annotation) if is_union(info.annotation) else ()
    return [*info.metadata, *(m for a in inner for m in getattr(a, "__metadata__", ()))]
