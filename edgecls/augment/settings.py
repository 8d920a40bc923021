"""The recipe's ``augment`` section, made of the registry."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import Field, create_model, model_validator

from edgecls._schema import Section
from edgecls.augment import erase, geometry, mix, policy  # noqa: F401  # they register their operations
from edgecls.augment.registry import OPERATIONS, Range, Where, check_range


class _Crop(Section):
    """Keys of the random crop, the first thing that happens to an image."""

    crop_scale: Range | None = Field(
        default=[0.5, 1.0],
        description="area of the random crop, lowest and highest, as a share of the photo (0 to 1); null: the"
        " center crop",
    )
    crop_ratio: Range = Field(
        default=[0.75, 4 / 3], description="width / height of the random crop, lowest and highest"
    )


_in_order = sorted(OPERATIONS.values(), key=lambda op: get_args(Where).index(op.where))
_fields: Any = {op.name: op.field for op in _in_order}
_WithOperations: Any = create_model("_WithOperations", __base__=_Crop, **_fields)


class Augment(_WithOperations):
    """Random changes of the training images."""

    off_epochs: int = Field(
        default=0,
        ge=0,
        description="last epochs of a training, in which no images are mixed (`mixup`, `cutmix`)",
    )
    repeats: int = Field(
        default=1,
        ge=1,
        le=64,
        description="how often an image comes in a batch, changed anew each time (repeated augmentation); an epoch"
        " stays as long and holds fewer images",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Augment:
        if self.crop_scale is not None:
            check_range("crop_scale", self.crop_scale, 1)
        check_range("crop_ratio", self.crop_ratio, 100)
        return self


def only(**operations: Any) -> dict[str, Any]:
    """The section with all that is not named switched off, also what is on by default.

    Example:
        >>> Augment.model_validate(only(rotate90=True)).flip
        'none'
    """
    return {"crop_scale": None} | {name: op.off for name, op in OPERATIONS.items()} | operations
