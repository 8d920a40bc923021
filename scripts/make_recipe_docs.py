"""Write docs/recipe.md, every key of a recipe, from the recipe's schema.

    python scripts/make_recipe_docs.py

A new key or section appears in the page by itself; ``tests/test_recipe_docs.py`` fails until this was run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from edgecls import _schema
from edgecls.files import write_text
from edgecls.recipe import Recipe

PAGE = Path(__file__).parents[1] / "docs" / "recipe.md"
INTRO = """# Recipe keys

Written by `scripts/make_recipe_docs.py` from the schema in `edgecls/recipe.py`.

A recipe is a YAML file. A key that is not written has the default of its place: `quantize.train.epochs` and
`train.epochs` are different keys with different defaults. An unknown key, a value of another type and a value out of
range are refused with the file and the line.

- `base: NAME` (or a list of names; later ones win) starts from other recipes: files beside this one, or recipes that
  come with the package, such as `base`. Mappings merge key by key; lists and single values are replaced.
- `-o train.epochs=5` on the command line changes one key; the value is YAML.
- Relative paths start from the current folder if they exist there, else from the folder of the recipe.
- `edgecls train RECIPE --dry-run` prints the recipe with all defaults.
"""
KINDS = (
    "`name` tells which it is; a bare name is short for a section with its defaults. A section of another name replaces"
    " an earlier one whole."
)
KINDS_HEADER = "| name | key | type | default | range | meaning |\n|---|---|---|---|---|---|"
HEADER = "| key | type | default | range | meaning |\n|---|---|---|---|---|"


def main() -> None:
    write_text(PAGE, page())


def page() -> str:
    """The page as Markdown."""
    rows: dict[str, list[str]] = {}
    titles: dict[str, str] = {}
    tagged = _schema.tagged(Recipe)
    kinds: dict[Any, _schema.Key] = {}  # by their classes, the shortest key that holds them
    for key in sorted(_schema.keys(Recipe), key=lambda key: -len(key.dotted)):
        if key.path in tagged:
            kinds[key.sections] = key
    for key in _schema.keys(Recipe):
        if any(key.path[:length] in tagged for length in range(1, len(key.path))):
            continue  # a key of one kind; it stands in the table of kinds
        group = key.path[0] if len(key.path) > 1 or key.sections else ""
        if len(key.path) == 1 and key.sections:
            titles[group] = _sentence(key.info.description or "") + _presence(key)
        if key.path in tagged:
            rows.setdefault(group, []).append(_row_of_kinds(key, kinds[key.sections]))
        elif not key.sections or (len(key.path) > 1 and key.default is None):
            rows.setdefault(group, []).append(_row(key))
    parts = [INTRO, "## At the top", "", HEADER, *rows.pop("")]
    for group, lines in rows.items():
        parts += ["", f"## {group}", "", titles[group], "", HEADER, *lines]
    for sections, key in kinds.items():
        parts += ["", f"## {_title_of_kinds(key)}", "", KINDS, "", KINDS_HEADER]
        parts += [line for section in sections for line in _rows_of_kind(section)]
    return "\n".join(parts) + "\n"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _presence(key: _schema.Key) -> str:
    if key.default is None:
        return f" Without this section (`{key.dotted}: null`, the default) there is none."
    return " This section must be written." if key.default is _schema.REQUIRED else ""


def _title_of_kinds(key: _schema.Key) -> str:
    return f"Kinds of {key.dotted}"


def _row_of_kinds(key: _schema.Key, shortest: _schema.Key) -> str:
    """The row of a key that holds one of several sections; ``shortest`` is the key that names their table."""
    title = _title_of_kinds(shortest)
    anchor = title.lower().replace(".", "").replace(" ", "-")
    default = key.default.model_dump(exclude_defaults=True)
    shown = ", ".join(
        f"{name}: {_value(value)}" for name, value in {"name": key.default.name, **default}.items()
    )
    cells = [
        f"`{key.dotted}`",
        f"[one of these](#{anchor})",
        f"`{{{shown}}}`",
        "",
        key.info.description or "",
    ]
    return "| " + " | ".join(cells) + " |"


def _rows_of_kind(section: type[BaseModel]) -> list[str]:
    """One row with the name of a kind, and one for each of its keys."""
    rows = []
    for key in _schema.keys(section):
        if key.path == ("name",):
            rows.insert(0, f"| `{key.default}` |  |  |  |  | {key.info.description} |")
        else:
            rows.append(f"|  {_row(key)}")
    return rows


def _row(key: _schema.Key) -> str:
    schema = _json_schema(key)
    default = "must be written" if key.default is _schema.REQUIRED else f"`{_value(key.default)}`"
    kind = _kind(schema)
    for mark in _schema.metadata(key.info):
        if isinstance(mark, _schema.OnDisk):
            kind = kind.replace("text", "path" if mark == _schema.OnDisk() else "path or name")
    cells = [f"`{key.dotted}`", kind, default, _range(schema), key.info.description or ""]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _json_schema(key: _schema.Key) -> dict[str, Any]:
    """The JSON schema of the key alone: pydantic's standard words for its type and range."""
    return key.owner.model_json_schema()["properties"][key.path[-1]]


def _options(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return schema.get("anyOf") or schema.get("oneOf") or [schema]


NAMES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
    "object": "section",
}


def _kind(schema: dict[str, Any], plural: bool = False) -> str:
    return " or ".join(dict.fromkeys(_one_kind(option, plural) for option in _options(schema)))


def _one_kind(schema: dict[str, Any], plural: bool) -> str:
    choices = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    if choices:
        return " or ".join(f"`{choice}`" for choice in choices)
    if schema.get("type") == "array":
        low, high = schema.get("minItems"), schema.get("maxItems")
        count = f"{low} " if low and low == high else ""
        return f"list of {count}{_kind(schema['items'], plural=True)}"
    name = "section" if "$ref" in schema else NAMES[schema["type"]]
    return f"{name}s" if plural and name != "text" else name


def _range(schema: dict[str, Any]) -> str:
    """Limits of a value, or of each item of a list, and of the length of a list."""
    found = []
    for option in _options(schema):
        item = option.get("items", option)
        if "items" in option and (least := option.get("minItems")) and least != option.get("maxItems"):
            found.append(f"{least} or more")
        found += filter(None, [_limits(item)])
        if "pattern" in item:
            found.append(f"matches `{item['pattern']}`")
    return "; ".join(found)


def _limits(schema: dict[str, Any]) -> str:
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    if "minimum" in schema and "maximum" in schema:
        return f"{_number(schema['minimum'])} to {_number(schema['maximum'])}"
    return ", ".join(f"{words[limit]} {_number(schema[limit])}" for limit in words if limit in schema)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _value(value: Any) -> str:
    """A default as YAML; floats with five digits."""
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, float):
        return f"{value:.5g}"
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    main()
