"""docs/recipe.md and the README say what the recipe's schema says."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from photos import folder

from edgecls import _schema
from edgecls.recipe import Recipe, load_recipe

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
    tagged = _schema.tagged(Recipe)
    for key in _schema.keys(Recipe):
        above = [key.path[:length] for length in range(1, len(key.path)) if key.path[:length] in tagged]
        if above:
            assert (
                f"\n| `{key.default}` |" in page
                if key.path[-1] == "name"
                else f"|  | `{key.path[-1]}` |" in page
            )
        elif not key.sections or key.path in tagged:
            assert page.count(f"\n| `{key.dotted}` | ") == 1


def test_rows_say_type_default_and_range(page):
    for row in (
        "| `quantize.train.optimizer` | [one of these](#kinds-of-trainoptimizer) | `{name: sgd, lr: 0.0002, clip_norm: 1}` |",
        "\n|  | `lr` | number | `0.016` | above 0 | ",
        "| `model.input_size` | whole number or null | `null` | 32 to 4,096 | ",
        "| `data.extra.path` | path | must be written |  | ",
        "| `model.name` | text or null | `null` |  | ",
        "| `data.path` | path or null | `null` |  | ",
        "| `model.weights` | path or name or null | `null` |  | ",
        "| `bench.threads` | list of whole numbers | `[1, 2]` | 1 or more; 1 to 64 | ",
        "| `data.test_fraction` | number | `0.25` | at least 0, below 1 | ",
    ):
        assert row in page


def readme_section(title: str) -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.split(r"^## ", text.partition(f"## {title}\n")[2], maxsplit=1, flags=re.M)[0]


@pytest.mark.slow
def test_the_recipe_of_the_readme_runs_as_it_is_written(tmp_path, monkeypatch):
    """On a small folder, from any place: one epoch at 64 pixels, so that it takes a minute."""
    section = readme_section("Your own images")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", section, flags=re.S | re.M)
    (recipe,) = (text for kind, text in blocks if kind == "yaml")
    (commands,) = (text for kind, text in blocks if kind == "")
    monkeypatch.chdir(tmp_path)
    Path("flowers.yaml").write_text(recipe, encoding="utf-8")
    folder(Path("photos/flowers"), {"daisy": 30, "tulip": 30})
    assert load_recipe("flowers.yaml").train.epochs == 10
    shorter = "-o train.epochs=1 -o model.input_size=64 -o train.batch_size=16"
    for line in commands.splitlines():
        program, *args = line.partition("#")[0].split()
        assert program == "edgecls"
        if args[0] == "train":
            args += shorter.split()
        else:
            args += ["-o", "quantize.train.epochs=1", "-o", "quantize.train.batch_size=16"]
        done = subprocess.run(
            [sys.executable, "-m", "edgecls", *args], capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stderr
    assert Path("runs/latest/float.keras").is_file()
    assert Path("runs/latest/export/model_int8.tflite").is_file()
