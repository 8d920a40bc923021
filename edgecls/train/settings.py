"""The recipe's ``train`` section."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from edgecls._explain import Wrong
from edgecls._schema import Fraction, Section
from edgecls.train.losses import AnyLoss, CrossEntropy
from edgecls.train.optimizers import AnyOptimizer, Sgd
from edgecls.train.schedules import AnySchedule, Cosine


def _as_names(given: Any) -> Any:
    """One name is a list of one, and a stage may be written as a number."""
    given = given if isinstance(given, list) else [given]
    return [str(name) if type(name) is int else name for name in given]


Stages = Annotated[list[str], BeforeValidator(_as_names)]


class Train(Section):
    """One training phase."""

    epochs: int = Field(default=10, ge=1, description="passes over the training images")
    batch_size: int = Field(default=32, ge=1, description="images in a step, over all devices together")
    accumulate: int = Field(
        default=1,
        ge=1,
        description="equal parts in which a batch is computed, one after the other, to save memory; batch"
        " normalization sees one part at a time",
    )
    optimizer: AnyOptimizer = Field(default=Sgd(), description="how the weights are updated")
    schedule: AnySchedule = Field(default=Cosine(), description="how the learning rate changes")
    loss: AnyLoss = Field(default=CrossEntropy(), description="what the labels ask for")
    label_smoothing: Fraction = Field(
        default=0.0, description="share of each label that is spread evenly over all classes"
    )
    checkpoint_minutes: float | None = Field(
        default=10.0,
        gt=0,
        description="minutes after which a training is saved in the middle of an epoch, too; null: at ends of epochs"
        " only",
    )
    select: Literal["best", "last"] = Field(
        default="best",
        description="weights to keep: of the epoch with the best balanced accuracy on the validation images, or"
        " of the last epoch",
    )
    bn_momentum: Fraction | None = Field(
        default=None,
        description="share of the old statistics that batch normalization keeps at each step; lower it (0.9) for"
        " a training of few steps; null: as published, for long trainings",
    )
    lr_mult_list: list[Annotated[float, Field(ge=0)]] | None = Field(
        default=None,
        description="factors of the learning rate by stage, from the stem to the last stage; one more is the head's,"
        " which else is 1. Five for MobileNetV3 are by PaddleClas' groups. `edgecls.model_info(name).stages` has the"
        " stages; null: all 1",
    )
    freeze: Stages = Field(
        default=[],
        description="stages whose weights do not train and whose batch normalization keeps its statistics:"
        " `[stem, 1, 2]`, or `backbone` for all but the head",
    )
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        default="float32",
        description="of the arithmetic; weights, their averages, logits and losses are float32 in any case, and so is"
        " the trained network",
    )
    ema_decay: Fraction | None = Field(
        default=None,
        description="share of the old values that averaged weights (EMA) keep at each step; null: no average",
    )

    @model_validator(mode="after")
    def _has_equal_parts(self) -> Train:
        if self.batch_size % self.accumulate:
            text = f"a batch of {self.batch_size} cannot be divided into {self.accumulate} equal parts"
            raise Wrong(text, "accumulate", "batch_size", fix="make batch_size a multiple of accumulate")
        return self
