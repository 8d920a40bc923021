"""The section ``data`` of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from edgecls._explain import Wrong
from edgecls._schema import FilePath, Fraction, Section


class Data(Section):
    """Where the images and labels come from and how they are split."""

    source: Literal["folder", "list", "idx", "elpv"] = Field(
        default="folder",
        description="`folder`: one folder for each class; `list`: a text file with a line `path label` for each"
        " image; `idx`: the files of MNIST; `elpv`: the built-in photos of solar cells",
    )
    path: FilePath | None = Field(
        default=None, description="folder or file of the images; needed but for `elpv`"
    )
    val_path: FilePath | None = Field(
        default=None, description="folder or file of the validation images; null: split off"
    )
    test_path: FilePath | None = Field(
        default=None, description="folder or file of the test images; null: split off, always the same ones"
    )
    labels: FilePath | None = Field(
        default=None,
        description="file with the name of a class on each line; for `idx` the file of labels; null: as found",
    )
    classes: list[str] | int | None = Field(
        default=None, description="names of the classes in their order, or how many there are; null: as found"
    )
    test_fraction: Fraction = Field(
        default=0.25, description="share of each class that is split off for testing"
    )
    val_fraction: Fraction = Field(
        default=0.1, description="share of each class, without the test images, split off for validation"
    )
    class_weights: Literal["none", "balanced"] = Field(
        default="none",
        description="`balanced`: each class counts the same in the loss, however few its images",
    )
    max_bad_fraction: float = Field(
        default=0.01, ge=0, le=1, description="share of unreadable images above which the training stops"
    )
    antialias: bool = Field(
        default=False,
        description="resize with anti-aliasing, as Pillow and many libraries on phones do; false: without, as"
        " OpenCV does. Set it to what the app does",
    )
    cache: bool = Field(default=True, description="keep the decoded images in memory if they fit")

    @model_validator(mode="after")
    def _has_path(self) -> Data:
        if self.source != "elpv" and self.path is None:
            raise Wrong(f"source {self.source!r} needs path", "path", "source", fix="add data.path")
        if isinstance(self.classes, int) and self.classes < 2:
            raise Wrong("classes must be at least 2", "classes")
        if isinstance(self.classes, list):
            if len(self.classes) < 2:
                raise Wrong("classes must name at least 2 classes", "classes")
            if len(set(self.classes)) < len(self.classes):
                raise Wrong("classes has a name twice", "classes")
        return self
