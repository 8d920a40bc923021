"""The section ``data`` of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from edgecls._explain import Wrong
from edgecls._schema import FilePath, Fraction, Section

Source = Literal["folder", "list", "tfrecord", "idx", "elpv"]


class Extra(Section):
    """A further source of training images."""

    path: FilePath = Field(description="folder, list file or TFRecord files")
    source: Literal["folder", "list", "tfrecord"] = Field(default="folder", description="as `data.source`")
    weight: float = Field(
        default=1.0,
        gt=0,
        le=1000,
        description="how often each of its images comes in an epoch: 0.5 is in every second one, 2 is twice in each",
    )
    labels: bool = Field(
        default=True,
        description="true: its labels count, and must be classes of the main source; false: its images are unlabeled,"
        " at any depth of a folder, and only a teacher can use them",
    )


class Data(Section):
    """Where the images and labels come from and how they are split."""

    source: Source = Field(
        default="folder",
        description="`folder`: one folder for each class; `list`: a text file with a line `path label` for each"
        " image, or a CSV file; `tfrecord`: TFRecord files of images; `idx`: the files of MNIST; `elpv`: the"
        " built-in photos of solar cells",
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
    image_column: str | int | None = Field(
        default=None,
        description="for `list`: the column of the images, its name in the header or its number from 1; for"
        " `tfrecord`: the feature; null: as found",
    )
    label_column: str | int | None = Field(
        default=None, description="the same for the labels; null: as found"
    )
    labels: FilePath | None = Field(
        default=None,
        description="file with the name of a class on each line, or `number name` as in the label maps of PaddleClas;"
        " for `idx` the file of labels; null: as found",
    )
    classes: list[str] | int | None = Field(
        default=None, description="names of the classes in their order, or how many there are; null: as found"
    )
    extra: list[Extra] = Field(
        default=[], description="further sources of training images; each has the keys below"
    )
    test_fraction: Fraction = Field(
        default=0.25, description="share of each class that is split off for testing"
    )
    val_fraction: Fraction = Field(
        default=0.1, description="share of each class, without the test images, split off for validation"
    )
    near_duplicates: Literal["off", "warn", "group", "drop"] = Field(
        default="warn",
        description="images that are almost the same: `warn` counts those in two splits; `group` keeps them in one"
        " split; `drop` keeps one of them; `off` does not look (`docs/data.md`)",
    )
    class_weights: Literal["none", "balanced"] = Field(
        default="none",
        description="`balanced`: each class counts the same in the loss, however few its images",
    )
    sampling: Literal["none", "oversample", "balanced", "dynamic"] = Field(
        default="none",
        description="how often images come in an epoch: `oversample` repeats those of small classes until every class"
        " has as many as the largest; `balanced` draws as many of each class and keeps the length of the epoch;"
        " `dynamic` goes from `none` in the first epoch to `balanced` in the last",
    )
    max_images: int | None = Field(
        default=None,
        ge=8,
        description="at most so many images of each split or further source, evenly over its classes; of many classes"
        " only some, 8 images each; null: all",
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
        if self.sampling != "none" and self.class_weights != "none":
            fix = "leave one of them out: together small classes would count twice"
            raise Wrong(
                "sampling and class_weights both balance the classes", "sampling", "class_weights", fix=fix
            )
        return self
