"""The best trial of a search as a recipe that is ready to train."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecls import _load, _schema, _yaml
from edgecls.files import write_text
from edgecls.recipe import Recipe, find_recipe, recipe_names
from edgecls.search.space import Values, override_texts
from edgecls.text import escape

_WIDTH = 108  # characters of a comment line


@dataclass(frozen=True)
class Origin:
    """Where the recipe of a search comes from.

    Attributes:
        recipe: A file, or the name of a recipe that comes with the package.
        overrides: Texts ``KEY=VALUE`` that were laid over it.
    """

    recipe: str
    overrides: Sequence[str] = ()

    def base(self, folder: Path) -> str:
        """What ``base:`` says in a recipe in ``folder``."""
        path = find_recipe(self.recipe).resolve()
        packaged = (name for name in recipe_names() if find_recipe(name).resolve() == path)
        return next(packaged, os.path.relpath(path, folder.resolve()))


def write_best(
    path: Path, origin: Origin, values: Values, comments: Sequence[str], teachers: Values | None = None
) -> None:
    """Write a recipe of the keys that differ from another one's.

    Args:
        path: The file.
        origin: The recipe that it starts from.
        values: Of the best trial.
        comments: Lines for its top.
        teachers: Keys that name the trained teachers' files; relative ones start from the folder of ``path``.

    Example:
        >>> write_best(Path("best.yaml"), Origin("mv3_ssld"), {"train.label_smoothing": 0.1}, [])  # doctest: +SKIP
    """
    kinds = _schema.tagged(Recipe)
    changed = _yaml.Tree()
    _load.override(changed, [*origin.overrides, *override_texts(values)], kinds)
    tree = _yaml.Tree(_load.absolute(Recipe, changed))
    _load.override(tree, override_texts(teachers or {}), kinds)
    lines = [line for text in comments for line in textwrap.wrap(escape(text), _WIDTH) or [""]]
    head = [f"# {line}".rstrip() for line in lines]
    base = _yaml.line("base", origin.base(path.parent))
    write_text(path, "\n".join([*head, base, "", _yaml.dump(tree.values)]))
