"""Pydantic's errors about a recipe as one line: file and line, key, what was received, what was expected."""

from __future__ import annotations

import difflib
import json
import types
import typing
from typing import Any

from pydantic import BaseModel, ValidationError

from edgecls import _yaml
from edgecls.errors import UsageError


def is_union(annotation: Any) -> bool:
    """Whether a field's type is ``A | B``."""
    return typing.get_origin(annotation) in (types.UnionType, typing.Union)


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section class in a field's type, e.g. ``Teacher`` of ``Teacher | None``."""
    options = typing.get_args(annotation) if is_union(annotation) else (annotation,)
    return next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)


def usage_error(error: ValidationError, tree: _yaml.Tree, top: type[BaseModel]) -> UsageError:
    """Pydantic's list of errors as one line: the first, unknown keys before everything else."""
    errors = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
    first = errors[0]
    key, section = _locate(top, first["loc"])
    dotted = ".".join(map(str, key))
    same = [e for e in errors if _locate(top, e["loc"])[0] == key]
    others = len({_locate(top, e["loc"])[0] for e in errors}) - 1
    more = f" (and {others} more)" if others else ""
    where = tree.origin(key).text
    if first["type"] == "extra_forbidden":
        names = list(section.model_fields)
        near = difflib.get_close_matches(str(key[-1]), names, n=1, cutoff=0.5)
        fix = f"did you mean {near[0]!r}?" if near else f"known keys here: {', '.join(names)}"
        return UsageError(f"unknown key {dotted!r}{more}", where=where, fix=fix)
    if first["type"] == "missing":
        fix = (section.model_fields[str(key[-1])].description or "") if key else ""
        return UsageError(
            f"key {dotted!r} is missing{more}", where=where, fix=f"add it: {fix}" if fix else "add it"
        )
    if first["type"] == "value_error":
        text = first["msg"].removeprefix("Value error, ")
        return UsageError(f"{dotted}: {text}{more}" if dotted else text, where=where)
    wanted = " or ".join(dict.fromkeys(_wanted(e) for e in same))
    got = first["input"]
    kind = _KINDS.get(type(got), type(got).__name__)
    shown = "null" if got is None else f"{kind} {json.dumps(got, default=str, ensure_ascii=False)[:60]}"
    return UsageError(f"{dotted}: expected {wanted}, got {shown}{more}", where=where)


_KINDS = {str: "text", int: "whole number", float: "number", bool: "boolean", list: "list", dict: "mapping"}
_WORDS = {
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "text",
    "a valid boolean": "true or false",
    "a valid list": "a list",
    "a valid dictionary or instance of ": "a mapping with the keys of ",
}


def _wanted(error: Any) -> str:
    """What pydantic expected, in the words of the other messages."""
    ctx = error.get("ctx", {})
    if error["type"] in ("too_short", "too_long"):
        few = error["type"] == "too_short"
        return f"a list of at {'least' if few else 'most'} {ctx['min_length' if few else 'max_length']}"
    if error["type"] == "string_pattern_mismatch":
        return "a name of letters, digits, '_', '.' and '-', beginning with a letter or digit"
    text = error["msg"].removeprefix("Input should be ")
    for old, new in _WORDS.items():
        text = text.replace(old, new)
    return text[:1].lower() + text[1:]


def _locate(top: type[BaseModel], loc: tuple[str | int, ...]) -> tuple[_yaml.Key, type[BaseModel]]:
    """The recipe key of a pydantic location (which names union members too) and the section it is in."""
    section = top
    for depth, name in enumerate(loc):
        info = section.model_fields.get(str(name))
        inner = section_of(info.annotation) if info is not None else None
        if inner is None:
            rest = tuple(n for n in loc[depth + 1 :] if isinstance(n, int))
            return (*loc[: depth + 1], *rest), section
        if depth + 1 < len(loc):
            section = inner
    return loc, section
