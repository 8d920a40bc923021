"""Pydantic's errors about a recipe as one line: file and line, key, what was received, what was expected."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from edgecls import _schema, _yaml
from edgecls.errors import UsageError


class Wrong(ValueError):
    """The error that a section's validator raises.

    Args:
        text: What is wrong.
        keys: Keys of the section that it is about, dotted; the line of the first one that is written is shown.
        fix: What to do about it.
    """

    def __init__(self, text: str, *keys: str, fix: str = "") -> None:
        super().__init__(text)
        self.keys, self.fix = keys, fix


def usage_error(
    error: ValidationError, tree: _yaml.Tree, top: type[BaseModel], above: _yaml.Key = ()
) -> UsageError:
    """Pydantic's list of errors as one line: the first, unknown keys before everything else.

    Args:
        error: Of pydantic.
        tree: What was validated.
        top: As what.
        above: Where ``tree`` stands in the recipe.
    """
    errors = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
    first = errors[0]
    key, section = _locate(top, first["loc"])
    dotted = _yaml.dotted((*above, *key))
    same = [e for e in errors if _locate(top, e["loc"])[0] == key]
    others = len({_locate(top, e["loc"])[0] for e in errors}) - 1
    more = f" (and {others} more)" if others else ""
    where = tree.origin(key).text
    if first["type"] == "extra_forbidden":
        return UsageError(f"unknown key {dotted!r}{more}", where=where, fix=_nearest(key, section, top))
    if first["type"] == "missing":
        fix = (section.model_fields[str(key[-1])].description or "") if key else ""
        return UsageError(
            f"key {dotted!r} is missing{more}", where=where, fix=f"add it: {fix}" if fix else "add it"
        )
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, Wrong):
        where = _origin(tree, key, cause.keys).text
        return UsageError(
            f"{dotted}: {cause}{more}" if dotted else f"{cause}{more}", where=where, fix=cause.fix
        )
    wanted = " or ".join(dict.fromkeys(_wanted(e) for e in same))
    got = first["input"]
    kind = _KINDS.get(type(got), type(got).__name__)
    shown = "null" if got is None else f"{kind} {json.dumps(got, default=str, ensure_ascii=False)[:60]}"
    return UsageError(f"{dotted}: expected {wanted}, got {shown}{more}", where=where)


def _origin(tree: _yaml.Tree, section: _yaml.Key, names: Sequence[str]) -> _yaml.Origin:
    """Where the first of some keys of a section is written; where none is: where the section is."""
    keys = [(*section, *name.split(".")) for name in names]
    return next((tree.origins[key] for key in keys if key in tree.origins), tree.origin(section))


_SHOWN = 3  # places of a key's name that an error text lists


def _nearest(key: _yaml.Key, section: type[BaseModel], top: type[BaseModel]) -> str:
    """What an unknown key may mean: a key of its section, or one of its name anywhere in the schema."""
    name, parents = str(key[-1]), tuple(part for part in key[:-1] if isinstance(part, str))
    places = {k.dotted: k.path for k in _schema.keys(top)}
    if near := difflib.get_close_matches(name, section.model_fields, n=1, cutoff=0.75):
        return f"did you mean {_yaml.dotted((*key[:-1], near[0]))!r}?"
    names = {path[-1] for path in places.values()}
    if elsewhere := difflib.get_close_matches(name, names, n=1, cutoff=0.8):
        found = [
            dotted for dotted, path in places.items() if path[-1] == elsewhere[0] and path != (*parents, name)
        ]
        # Nearest first: places below the section that was written, then those with few names.
        found.sort(key=lambda dotted: (places[dotted][: len(parents)] != parents, dotted.count(".")))
        listed = ", ".join(map(repr, found[:_SHOWN])) + (", ..." if len(found) > _SHOWN else "")
        return f"did you mean {listed}?" if len(found) == 1 else f"did you mean one of {listed}?"
    if near := difflib.get_close_matches(name, section.model_fields, n=1, cutoff=0.5):
        return f"did you mean {_yaml.dotted((*key[:-1], near[0]))!r}?"
    if not section.model_fields:
        return f"{_yaml.dotted(key[:-1])} has no keys: {{}}"
    return f"keys of {_yaml.dotted(key[:-1]) or 'a recipe'}: {', '.join(section.model_fields)}"


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
    if error["type"] == "union_tag_invalid":
        return f"{ctx['discriminator']} to be one of {ctx['expected_tags']}"
    if error["type"] == "string_pattern_mismatch":
        return "a name of letters, digits, '_', '.' and '-', beginning with a letter or digit"
    text = error["msg"].removeprefix("Input should be ")
    for old, new in _WORDS.items():
        text = text.replace(old, new)
    return text[:1].lower() + text[1:]


def _locate(top: type[BaseModel], loc: tuple[str | int, ...]) -> tuple[_yaml.Key, type[BaseModel]]:
    """The recipe key of a pydantic location, and the section it is in.

    A location also names the member of a union that was tried, which is no key:
    ``("data", "classes", "int")`` is ``data.classes``.
    """
    key: list[str | int] = []
    section = top
    options: tuple[type[BaseModel], ...] = (top,)
    is_union = False
    for name in loc:
        owner = next((s for s in options if name in s.model_fields), None)
        if isinstance(name, int):
            key.append(name)
        elif owner is not None:
            key.append(name)
            annotation = owner.model_fields[name].annotation
            section, options = owner, _schema.sections_of(annotation)
            is_union = len(_schema.members(annotation)) > 1
        elif is_union:
            options = tuple(s for s in options if _is_member(s, name)) or options
            section, is_union = next(iter(options), section), False
        elif options:  # an unknown key
            key.append(name)
            section, options = options[0], ()
    return tuple(key), section


def _is_member(section: type[BaseModel], name: str) -> bool:
    """Whether a location means ``section`` by ``name``: its class, or the value of the field that tells sections apart."""
    tags = [_schema.default_of(info) for info in section.model_fields.values()]
    return name == section.__name__ or name in tags
