"""The recipe's ``model`` and ``teacher`` sections: which network, its first weights, the pixels that it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from edgecls._explain import Wrong
from edgecls._schema import Fraction, OnDisk, Section
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


class Model(Section):
    """The network that will run on the phone."""

    name: str = Field(description="network; `edgecls models` lists the names")
    weights: Weights | None = Field(
        default=None,
        description="weights to start from: a file, `https://host/file#sha256=HEX`, or a pretraining such as"
        " `imagenet`; null: random weights",
    )
    input_size: int | None = Field(
        default=None, ge=32, le=4096, description="side of the square input, pixels; null: as published"
    )
    resize_short: int | None = Field(
        default=None,
        ge=8,
        le=8192,
        description="a photo's shorter side is resized to this before the center is cut out, pixels, at least"
        " `input_size`; null: in proportion as published (256 for an input of 224)",
    )
    mean: Mean | None = Field(
        default=None,
        description="subtracted from each channel (R, G, B), as fractions of 255 (0 to 1); null: as published",
    )
    std: Std | None = Field(
        default=None,
        description="divides each channel (R, G, B), as fractions of 255 (0.001 to 1); null: as published",
    )
    dropout: Fraction | None = Field(
        default=None, description="dropout rate before the classifier; null: as published"
    )
    embedding_dim: int | None = Field(
        default=None,
        ge=1,
        description="size of an additional dense layer before the classifier; null: no such layer",
    )
    acnet: bool = Field(
        default=False,
        description="train each convolution larger than 1x1 as the sum of a square, a vertical and a horizontal"
        " one (ACNet); the exported files have one convolution again",
    )


class OtherTeacher(Section):
    """A further network that the model learns from, in an average with the others."""

    name: str = Field(description="network; `edgecls models` lists the names")
    weights: Weights | None = Field(
        default=None,
        description="weights to start from: a file, `https://host/file#sha256=HEX`, or a pretraining such as"
        " `imagenet`; null: random weights, which `teacher.train` must then train; `random`: random weights all the"
        " same, to see that a recipe runs",
    )
    input_size: int | None = Field(
        default=None, ge=32, le=4096, description="side of the square input, pixels; null: the model's"
    )
    mean: Mean | None = Field(default=None, description="as `model.mean`")
    std: Std | None = Field(default=None, description="as `model.std`")
    dropout: Fraction | None = Field(default=None, description="as `model.dropout`")
    acnet: bool = Field(default=False, description="as `model.acnet`")
    train: Train | None = Field(
        default=None, description="training of the teacher on the same images; null: none"
    )

    @property
    def has_learned(self) -> bool:
        """Whether its answers are more than random."""
        return self.weights is not None or self.train is not None


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
