"""The recipe's ``model`` and ``teacher`` sections: which network, its first weights, the pixels that it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from edgecls._explain import Wrong
from edgecls._schema import FilePath, Fraction, OnDisk, Section
from edgecls.train.settings import Train


def _is_file(weights: str) -> bool:
    """Whether ``edgecls.weights.sources`` takes weights as a file: not as a URL or a pretraining's name."""
    if weights.startswith(("https://", "http://")):
        return False
    return bool(Path(weights).suffix) or len(Path(weights).parts) > 1


def _of_255(low: float) -> Callable[[list[float]], list[float]]:
    """A check that values are fractions of 255, from ``low`` to 1."""

    def check(values: list[float]) -> list[float]:
        if not all(low <= v <= 1 for v in values):
            fix = "divide them by 255" if max(values) > 1 else ""
            got = ", ".join(f"{v:g}" for v in values)
            raise Wrong(f"expected fractions of 255, from {low:g} to 1, got [{got}]", fix=fix)
        return values

    return check


RANDOM = "random"
"""Weights of a network that begins with random ones; of a teacher, too, which would otherwise be a mistake."""

Weights = Annotated[str, OnDisk(is_path=_is_file)]
Mean = Annotated[list[float], Field(min_length=3, max_length=3), AfterValidator(_of_255(0.0))]
Std = Annotated[list[float], Field(min_length=3, max_length=3), AfterValidator(_of_255(0.001))]


class Network(Section):
    """A network: one of the zoo by its name, or one in a file."""

    name: str | None = Field(
        default=None, description="network of the zoo; `edgecls models` lists the names; null: that of `file`"
    )
    file: FilePath | None = Field(
        default=None,
        description="a `.keras` file of any functional or Sequential Keras 3 classifier, in place of `name`; it has its"
        " weights, and its preprocessing may lie beside it (`docs/train.md`)",
    )
    weights: Weights | None = Field(
        default=None,
        description="weights to start from: a file, `https://host/file#sha256=HEX`, or a pretraining such as"
        " `imagenet`; null: random weights, or those of `file`",
    )
    input_size: int | None = Field(
        default=None,
        ge=32,
        le=4096,
        description="side of the square input, pixels; null: as published, or that of `file`",
    )
    mean: Mean | None = Field(
        default=None,
        description="subtracted from each channel (R, G, B), as fractions of 255 (0 to 1); null: as published, or as"
        " `file` has it",
    )
    std: Std | None = Field(
        default=None,
        description="divides each channel (R, G, B), as fractions of 255 (0.001 to 1); null: as published, or as"
        " `file` has it",
    )
    dropout: Fraction | None = Field(
        default=None, description="dropout rate before the classifier; null: as published"
    )
    acnet: bool = Field(
        default=False,
        description="train each convolution larger than 1x1 as the sum of a square, a vertical and a horizontal"
        " one (ACNet); the exported files have one convolution again",
    )

    OF_ZOO: ClassVar[tuple[str, ...]] = ("weights", "dropout", "acnet")  # keys that a file has no use for

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.name is None and self.file is None:
            raise Wrong("which network? name or file is missing", fix="add name; `edgecls models` lists them")
        if self.file is None:
            return self
        if self.name is not None:
            fix = "leave one of them out; of a base's name: null"
            raise Wrong("name and file are two networks", "file", "name", fix=fix)
        if not self.file.endswith(".keras"):
            fix = "save the network with model.save('mine.keras'), or edgecls convert"
            raise Wrong(f"file is no .keras file: {Path(self.file).name}", "file", fix=fix)
        for key in self.OF_ZOO:
            if getattr(self, key) not in (None, False):
                raise Wrong(
                    f"{key} is for networks of the zoo, and file has its own", key, fix="leave it out"
                )
        if (self.mean is None) != (self.std is None):
            raise Wrong("mean and std belong together", "mean", "std", fix="give both or neither")
        return self

    @property
    def title(self) -> str:
        """What it is called in what a person reads."""
        return self.name or Path(str(self.file)).name


class Model(Network):
    """The network that will run on the phone."""

    resize_short: int | None = Field(
        default=None,
        ge=8,
        le=8192,
        description="a photo's shorter side is resized to this before the center is cut out, pixels, at least"
        " `input_size`; null: in proportion as published (256 for an input of 224)",
    )
    embedding_dim: int | None = Field(
        default=None,
        ge=1,
        description="size of an additional dense layer before the classifier; null: no such layer",
    )
    new_head: bool = Field(
        default=False,
        description="of `file`: a new classifier even where its own has as many outputs as there are classes; it gets a"
        " new one in any case where it has not",
    )

    only_new_classes: bool = Field(
        default=False,
        description="train nothing but the classifier's outputs of classes that the network in `weights` (a run's"
        " `float.keras`) or `file` does not know, by the labels beside it; all else stays as it is there, so the old"
        " classes keep their logits",
    )

    OF_ZOO: ClassVar[tuple[str, ...]] = (*Network.OF_ZOO, "embedding_dim")

    @model_validator(mode="after")
    def _of_file(self) -> Self:
        if self.new_head and self.file is None:
            raise Wrong("new_head is for a network of a file", "new_head", fix="leave it out")
        if self.only_new_classes and not str(self.file or self.weights).endswith(".keras"):
            fix = "weights: runs/NAME/TIME/float.keras"
            raise Wrong("only_new_classes needs the network of the old ones", "only_new_classes", fix=fix)
        return self


class OtherTeacher(Network):
    """A further network that the model learns from, in an average with the others."""

    weights: Weights | None = Field(
        default=None,
        description="weights to start from: a file, `https://host/file#sha256=HEX`, or a pretraining such as"
        " `imagenet`; null: those of `file`, or random weights, which `teacher.train` must then train; `random`: random"
        " weights all the same, to see that a recipe runs",
    )
    input_size: int | None = Field(
        default=None, ge=32, le=4096, description="side of the square input, pixels; null: the model's"
    )
    train: Train | None = Field(
        default=None, description="training of the teacher on the same images; null: none"
    )

    @property
    def has_learned(self) -> bool:
        """Whether its answers are more than random."""
        return self.weights is not None or self.file is not None or self.train is not None


class Teacher(OtherTeacher):
    """The network that the model learns from. Without ``train`` it is used with its ``weights`` as they are."""

    others: list[OtherTeacher] = Field(
        default=[],
        description="further teachers: the model learns the mean of all their probabilities; each has the keys of"
        " `teacher`",
    )

    @property
    def all(self) -> list[OtherTeacher]:
        """This one and the others."""
        return [self, *self.others]
