"""Write the tables of docs/bench.md, every field of bench.json, from the types of the code.

    python scripts/make_bench_docs.py

A table stands behind a line ``<!-- fields of NAME: scripts/make_bench_docs.py -->``, where NAME is a type of
``android_bench.output.fields``, or ``Protocol``. ``tests/test_bench_docs.py`` fails until this was run.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from android_bench.measure.protocol import Protocol
from android_bench.output import fields
from android_bench.output.documents import atomic

PAGE = Path(__file__).parents[1] / "docs" / "bench.md"
MARK = re.compile(r"(<!-- fields of (\w+): scripts/make_bench_docs\.py -->\n)((?:\n?\|[^\n]*\n)*)")
HEADER = "\n| field | type | meaning |\n|---|---|---|\n"
NAMES = {float: "number", int: "whole number", str: "text", bool: "true or false", types.NoneType: "null"}


def main() -> None:
    text = page(PAGE.read_text(encoding="utf-8"))
    with atomic(PAGE) as part:
        part.write_text(text, encoding="utf-8")


def page(text: str) -> str:
    """The page with all its tables written anew."""
    return MARK.sub(lambda found: found[1] + table(found[2]), text)


def table(name: str) -> str:
    """The table of a type, as Markdown."""
    rows = protocol_rows() if name == "Protocol" else rows_of(getattr(fields, name))
    return HEADER + "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def rows_of(kind: Any) -> Iterator[tuple[str, str, str]]:
    """Name, type and meaning of each field of a type."""
    for name in own(kind):
        hint = typing.get_type_hints(kind, include_extras=True)[name]
        optional = typing.get_origin(hint) is typing.NotRequired
        bare, meaning = typing.get_args(typing.get_args(hint)[0] if optional else hint)
        yield f"`{name}`", words(bare) + (", optional" if optional else ""), meaning


def own(kind: Any) -> list[str]:
    """Names of a type's fields; those of ``Device`` are not told again of a kind of device."""
    names, common = list(kind.__annotations__), set(fields.Device.__annotations__)
    return [name for name in names if name not in common] if common < set(names) else names


def protocol_rows() -> Iterator[tuple[str, str, str]]:
    """The rules from the docstring of ``Protocol``, then those that a document adds."""
    told = inspect.getdoc(Protocol) or ""
    hints = typing.get_type_hints(Protocol)
    for field in dataclasses.fields(Protocol):
        found = re.search(rf"^ +{field.name}: (.*(?:\n {{8,}}.*)*)", told, re.MULTILINE)
        assert found, f"Protocol's docstring does not tell of {field.name}"
        meaning = " ".join(found[1].replace("``", "`").split()).rstrip(".,")
        yield f"`{field.name}`", words(hints[field.name]), meaning[:1].lower() + meaning[1:]
    yield from rows_of(fields.Rules)


def words(kind: Any) -> str:
    """A type in words.

    Example:
        >>> words(list[float] | None), words(dict[str, int])
        ('list of numbers or null', 'whole numbers by name')
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(dict.fromkeys(map(words, inner)))
    if origin is list:
        items = plural(words(inner[0]))
        return f"list of ({items})" if " or " in items else f"list of {items}"
    if origin is dict:
        return f"{plural(words(inner[1]))} by name"
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in inner)
    return "object" if typing.is_typeddict(kind) else NAMES[kind]


def plural(name: str) -> str:
    return " or ".join(one if one in ("text", "null") else f"{one}s" for one in name.split(" or "))


if __name__ == "__main__":
    main()
