"""What the recipe's schema is made of, and walking it: every key with its place, type, default and range.

Error texts, absolute paths, ``docs/recipe.md`` and the tests all walk the schema with these functions, so a new key
or a new section is added in one place: the section's class.
"""

from __future__ import annotations

import functools
import operator
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

REQUIRED: Any = object()
"""Default of a key that must be written."""


@dataclass(frozen=True)
class OnDisk:
    """Marks a text field as a path (``Annotated[str, OnDisk()]``).

    Attributes:
        is_path: Whether a value of the field is a path; others stay as they are written.
    """

    is_path: Callable[[str], bool] = lambda text: True


@dataclass(frozen=True)
class PartOf:
    """Marks a mapping that has some keys of a section, which are checked elsewhere (``Annotated[dict, PartOf(Data)]``).

    Attributes:
        section: The section's class.
    """

    section: type[BaseModel]


FilePath = Annotated[str, OnDisk()]
Fraction = Annotated[float, Field(ge=0, lt=1)]


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
            default = default_of(info)
            if isinstance(default, Section) and isinstance(written.get(name), dict):
                result[name] = _filled(default, written[name])
        return result


def one_of(kinds: Sequence[type[Section]]) -> Any:
    """The type of a key that holds one of several sections, told apart by their ``name``.

    A bare name is short for a section with that name and its defaults: ``schedule: cosine``.

    Args:
        kinds: Section classes; each has a field ``name: Literal["..."]``.
    """
    union = functools.reduce(operator.or_, kinds)
    tagged = Annotated[union, Field(discriminator="name")]  # type: ignore[valid-type]
    return Annotated[
        tagged, BeforeValidator(lambda given: {"name": given} if isinstance(given, str) else given)
    ]


def tagged(section: type[BaseModel]) -> frozenset[tuple[str, ...]]:
    """Paths of the keys below ``section`` that hold one of several sections, told apart by their ``name``."""
    return frozenset(
        key.path for key in keys(section) if len(key.sections) > 1 and all(map(_has_tag, key.sections))
    )


def _has_tag(section: type[BaseModel]) -> bool:
    return "name" in section.model_fields and _is_tag(section.model_fields["name"])


def _is_tag(info: FieldInfo) -> bool:
    """Whether a field has one possible value, and so tells its section from others."""
    return typing.get_origin(info.annotation) is typing.Literal and len(typing.get_args(info.annotation)) == 1


class Key(NamedTuple):
    """One key of a recipe.

    Attributes:
        path: Names from the top, for example ``("train", "optimizer", "lr")``.
        owner: The section class that has the key.
        info: Pydantic's description of the field.
        default: Value when the key is not written, in this place; ``REQUIRED`` if it must be written.
        sections: Classes of the section or sections that the key holds; empty for a plain value.
    """

    path: tuple[str, ...]
    owner: type[BaseModel]
    info: FieldInfo
    default: Any
    sections: tuple[type[BaseModel], ...]

    @property
    def dotted(self) -> str:
        """The key as ``-o`` takes it."""
        return ".".join(self.path)


def _filled(default: Section, written: dict[str, Any]) -> dict[str, Any]:
    """``written`` and, of the keys that are not, those that ``default`` sets.

    Where a key of one possible value tells sections apart (``name: Literal["adam"]``) and another value is written,
    the section is another one and has its own defaults.
    """
    result = dict(written)
    for name, info in type(default).model_fields.items():
        value = getattr(default, name)
        is_tag = _is_tag(info)
        if name not in written:
            if is_tag or name in default.model_fields_set:
                result[name] = value
        elif is_tag and written[name] != value:
            return written
        elif isinstance(value, Section) and isinstance(written[name], dict):
            result[name] = _filled(value, written[name])
    return result


def members(annotation: Any) -> tuple[Any, ...]:
    """The types in a field's type without None: ``(list[str], int)`` of ``list[str] | int | None``."""
    if typing.get_origin(annotation) not in (types.UnionType, typing.Union):
        return (annotation,)
    return tuple(member for member in typing.get_args(annotation) if member is not types.NoneType)


def sections_of(annotation: Any) -> tuple[type[BaseModel], ...]:
    """The section classes anywhere in a field's type, e.g. ``(Teacher,)`` of ``Teacher | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    found = [s for part in typing.get_args(annotation) for s in sections_of(part)]
    return tuple(dict.fromkeys(found))


def keys(
    section: type[BaseModel], defaults: BaseModel | None = None, at: tuple[str, ...] = ()
) -> Iterator[Key]:
    """Every key below ``section``, in the order of the schema; a section comes before the keys inside it.

    Args:
        section: A section class, for example ``Recipe``.
        defaults: The default of the section in its place; None: the defaults of its class.
        at: Names of the sections around it.
    """
    for name, info in section.model_fields.items():
        default = getattr(defaults, name) if defaults is not None else default_of(info)
        inner = sections_of(info.annotation)
        yield Key((*at, name), section, info, default, inner)
        for one in inner:
            yield from keys(one, default if isinstance(default, one) else None, (*at, name))


def default_of(info: FieldInfo) -> Any:
    """A field's default; ``REQUIRED`` if it has none."""
    return REQUIRED if info.is_required() else info.get_default(call_default_factory=True)


def metadata(info: FieldInfo) -> list[Any]:
    """Annotations of a field, those inside ``X | None`` included."""
    inner = members(info.annotation)
    return [*info.metadata, *(m for member in inner for m in getattr(member, "__metadata__", ()))]
