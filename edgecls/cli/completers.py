"""What the shell offers for models, recipes, devices and runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from collections.abc import Iterable


def _items(values: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(value) for value in values if value.startswith(incomplete)]


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the catalog."""
    from edgecls.zoo import catalog

    return _items(catalog.names(), incomplete)


def complete_family(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Families of the catalog."""
    from edgecls.zoo import catalog

    return _items(sorted({catalog.get(name).family for name in catalog.names()}), incomplete)


def complete_recipe(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the recipes that come with the package, those under recipes/, and files."""
    from edgecls.recipe import recipe_names

    recipes = [*recipe_names(), *sorted(p.as_posix() for p in Path("recipes").rglob("*.yaml"))]
    return _items(recipes, incomplete) or [CompletionItem(incomplete, type="file")]


def complete_run(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of runs and run folders, and files."""
    runs = sorted(Path("runs").glob("*/*/recipe.yaml"), reverse=True)
    names = dict.fromkeys(p.parts[1] for p in runs if p.parts[1] != "latest")
    folders = [p.parent.as_posix() for p in runs if p.parts[1] != "latest"]
    return _items([*names, *folders], incomplete) or [CompletionItem(incomplete, type="file")]


def complete_device(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """This computer and the names of devices.yaml."""
    from android_bench.devices.profiles import entries

    return _items(["host", *entries()], incomplete)
