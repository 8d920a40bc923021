"""docs/recipe.md and the README say what the recipe's schema says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from edgecls import _schema
from edgecls.recipe import Recipe

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def page() -> str:
    spec = importlib.util.spec_from_file_location(
        "make_recipe_docs", ROOT / "scripts" / "make_recipe_docs.py"
    )
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.page()


def test_the_page_of_keys_is_what_the_script_writes(page):
    assert (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8") == page, (
        "run python scripts/make_recipe_docs.py"
    )


def test_every_key_has_a_row(page):
    for key in _schema.keys(Recipe):
        if not key.sections:
            assert page.count(f"\n| `{key.dotted}` | ") == 1


def test_rows_say_type_default_and_range(page):
    for row in (
        "| `quantize.train.optimizer.lr` | number | `0.002` | above 0 | ",
        "| `train.optimizer.lr` | number | `0.05` | above 0 | ",
        "| `model.input_size` | whole number or null | `null` | 32 to 4,096 | ",
        "| `model.name` | text | must be written |  | ",
        "| `data.path` | path or null | `null` |  | ",
        "| `model.weights` | path or name or null | `null` |  | ",
        "| `bench.threads` | list of whole numbers | `[1, 2]` | 1 or more; 1 to 64 | ",
        "| `data.test_fraction` | number | `0.25` | at least 0, below 1 | ",
    ):
        assert row in page
