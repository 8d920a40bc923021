"""Reading a recipe before it is checked: finding the file, its bases, overrides, and paths."""

from __future__ import annotations

import difflib
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from edgecls import _schema, _yaml
from edgecls.errors import UsageError

_FOLDERS = (Path(__file__).parent / "recipes", Path(__file__).parents[1] / "recipes")
"""Recipes that come with the package: installed with it, or beside it in a checkout."""


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package, as ``find_recipe`` takes them: ``["base", ...]``."""
    return sorted({f.relative_to(d).with_suffix("").as_posix() for d in _FOLDERS for f in d.rglob("*.yaml")})


def find_recipe(name_or_path: str | Path) -> Path:
    """The file of a recipe.

    Args:
        name_or_path: A file, else the name of a recipe that comes with the package. ``base``, ``base.yaml`` and
            ``recipes/base.yaml`` are names of the same one.

    Example:
        >>> find_recipe("mv3_ssld").name
        'mv3_ssld.yaml'

    Raises:
        UsageError: There is neither such a file nor such a name.
    """
    text = str(name_or_path)
    return _find(_path(text, "recipe", where=text), text, where=text)


def _find(path: Path, name: str, *, where: str) -> Path:
    """``path`` if it is a file, else the packaged recipe ``name``."""
    if path.is_file():
        return path
    stem = name.removeprefix("recipes/").removesuffix(".yaml")
    names = recipe_names()
    if stem in names:
        return next(file for folder in _FOLDERS if (file := folder / f"{stem}.yaml").is_file())
    if path.is_dir():
        raise UsageError("the recipe is a folder", where=where, fix="give the path of a YAML file")
    near = difflib.get_close_matches(stem, names, n=1)
    shown = [
        *(name for name in names if "/" not in name),
        *sorted({f"{name.partition('/')[0]}/..." for name in names if "/" in name}),
    ]
    fix = f"did you mean {near[0]!r}?" if near else f"give a YAML file, or one of: {', '.join(shown)}"
    raise UsageError("no such recipe" + ("" if where == name else f": {name}"), where=where, fix=fix)


def _path(text: str, key: str, *, where: str, folder: Path | None = None) -> Path:
    """``text`` as a path of this system, ``~`` expanded; relative ones start from ``folder``.

    Raises:
        UsageError: It cannot be used: too long, a NUL character, ``~`` of a user without a home.
    """
    try:
        if "\0" in text:
            raise ValueError("it has a NUL character")
        path = (folder or Path()) / Path(text).expanduser()
        path.exists()
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{key}: not a usable path: {reason}", where=where[:_LONGEST]) from None
    return path


_LONGEST = 200  # characters of a path in an error text


def read(path: Path, kinds: Set[_yaml.Key] = frozenset(), above: tuple[Path, ...] = ()) -> _yaml.Tree:
    """A recipe file laid over its bases.

    Args:
        path: The YAML file.
        kinds: See ``Tree.merge``.
        above: Files whose base it is, resolved.
    """
    if path.resolve() in above:
        chain = " -> ".join(p.name for p in (*above, path.resolve()))
        raise UsageError(f"base goes in a circle: {chain}", where=str(path))
    written = _yaml.read(path)
    where = written.origin(("base",)).text
    bases = written.values.pop("base", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(b, str) for b in bases):
        raise UsageError("base: expected a file name or a list of them", where=where)
    tree = _yaml.Tree()
    for base in bases:
        file = _find(_path(base, "base", where=where, folder=path.parent), base, where=where)
        tree.merge(read(file, kinds, (*above, path.resolve())), kinds)
    tree.origins[()] = written.origin(())  # a missing key is missing from the file that was given
    tree.merge(written, kinds)
    return tree


def override(tree: _yaml.Tree, texts: Sequence[str], kinds: Set[_yaml.Key] = frozenset()) -> None:
    """Lay ``a.b=value`` texts over ``tree``; each value is YAML. ``kinds``: see ``Tree.merge``.

    An item of a list is called by its ``name``: ``phases.large.train.epochs=5``.
    """
    for text in texts:
        where = f"-o {text}"
        dotted, sign, value = text.partition("=")
        names = dotted.strip().split(".")
        if not sign or not all(names):
            raise UsageError("an override is KEY=VALUE", where=where, fix="for example -o train.epochs=5")
        item = _item(tree, names, where)
        if item is None:
            tree.merge(_override(names, value, where), kinds)
            continue
        changed = tree.below(item)
        changed.merge(_override(names[len(item) :], value, where), kinds)
        tree.put(item, changed)


def _item(tree: _yaml.Tree, names: Sequence[str], where: str) -> _yaml.Key | None:
    """The item of a list that an override goes into; None where it goes into no list.

    Raises:
        UsageError: The list has no item of this name.
    """
    parent: Any = tree.values
    for i, name in enumerate(names[:-1], 1):
        parent = parent.get(name) if isinstance(parent, dict) else None
        if not isinstance(parent, list):
            continue
        dotted = ".".join(names[:i])
        items = [each.get("name") if isinstance(each, dict) else None for each in parent]
        if names[i] in items and i + 1 < len(names):
            return (*names[:i], items.index(names[i]))
        known = ", ".join(str(each) for each in items if each is not None)
        if not parent:
            fix = f"leave out {dotted}.{names[i]} to set the key of the whole recipe, or write {dotted} first"
            raise UsageError(f"the recipe has no {dotted}", where=where, fix=fix)
        if not known:
            raise UsageError(f"{dotted} is a list: set it whole", where=where)
        if names[i] in items:
            raise UsageError(f"{dotted}.{names[i]} is a section", where=where, fix="name a key in it")
        raise UsageError(f"{dotted} has no {names[i]!r}", where=where, fix=f"it has {known}")
    return None


def _override(names: Sequence[str], value: str, where: str) -> _yaml.Tree:
    parsed = _yaml.parse(value, where, Path.cwd(), lines=False)
    tree = _yaml.Tree(parsed.values if value.strip() else None)  # type: ignore[arg-type]
    for name in reversed(names):
        tree.values = {name: tree.values}
    origin = _yaml.Origin(where, Path.cwd())
    keys = [tuple(names[:i]) for i in range(1, len(names) + 1)]
    tree.origins = dict.fromkeys([*keys, *((*names, *key) for key in parsed.origins if key)], origin)
    return tree


def absolute(section: type[BaseModel], tree: _yaml.Tree) -> dict[str, Any]:
    """The values of ``tree`` with relative paths made absolute.

    A path starts from the current folder if it exists there, else from the folder of the file it is written in.
    """
    return _absolute((section,), tree, tree.values, ())


def _absolute(sections: Sequence[type[BaseModel]], tree: _yaml.Tree, values: Any, at: _yaml.Key) -> Any:
    if isinstance(values, list):
        return [_absolute(sections, tree, item, (*at, i)) for i, item in enumerate(values)]
    if not isinstance(values, dict):
        return values
    result = dict(values)
    for name, info in [field for section in sections for field in section.model_fields.items()]:
        value, key = values.get(name), (*at, name)
        if isinstance(value, dict | list):
            marked = [m.section for m in _schema.metadata(info) if isinstance(m, _schema.PartOf)]
            result[name] = _absolute(marked or _schema.sections_of(info.annotation), tree, value, key)
        elif isinstance(value, str) and any(
            mark.is_path(value) for mark in _schema.metadata(info) if isinstance(mark, _schema.OnDisk)
        ):
            result[name] = _absolute_path(value, tree.origin(key), _yaml.dotted(key))
    return result


def _absolute_path(text: str, origin: _yaml.Origin, key: str) -> str:
    path = _path(text, key, where=origin.text)
    if path.exists():
        return str(path.absolute())
    return str(_path(text, key, where=origin.text, folder=origin.folder).resolve())
