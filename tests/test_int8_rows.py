"""A row of docs/int8.md is made again when what its network runs changes, and only then."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
import int8_rows

ROOT = Path(__file__).parent.parent
RULES = "edgecls.quantize.rules."
ROW = {"modules": [f"{RULES}linear", "edgecls.zoo.layers"]}
FAMILY = "edgecls.zoo.vgg"


@pytest.fixture
def code(tmp_path):
    for part in ("quantize", "export", "zoo"):
        shutil.copytree(
            ROOT / "edgecls" / part, tmp_path / "edgecls" / part, ignore=shutil.ignore_patterns("*.csv")
        )
    for part in ("graph", "reparam", "precisions"):
        shutil.copy(ROOT / "edgecls" / f"{part}.py", tmp_path / "edgecls")
    return tmp_path


def edit(root: Path, module: str, old: str, new: str) -> None:
    path = root.joinpath(*module.split(".")).with_suffix(".py")
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


@pytest.mark.parametrize(
    "module",
    [f"{RULES}linear", "edgecls.quantize.plan", "edgecls.export.metadata", "edgecls.zoo.blocks", FAMILY],
)
def test_a_change_of_what_a_row_runs(code, module) -> None:
    before = int8_rows.Fingerprint(code).of(ROW, FAMILY)
    edit(
        code,
        module,
        "from __future__ import annotations\n",
        "from __future__ import annotations\n\nADDED = 1\n",
    )
    assert int8_rows.Fingerprint(code).of(ROW, FAMILY) != before


def test_words_and_other_networks_code_do_not_count(code) -> None:
    before = int8_rows.Fingerprint(code).of(ROW, FAMILY)
    edit(code, f"{RULES}linear", '"""Convolutions and dense layers', '"""Other words')
    edit(code, f"{RULES}linear", '    """A depthwise convolution and one of a pixel."""', "    # other words")
    for module in (f"{RULES}resize", "edgecls.zoo.densenet", "edgecls.export.reasons"):
        edit(
            code,
            module,
            "from __future__ import annotations\n",
            "from __future__ import annotations\nADDED = 1\n",
        )
    assert int8_rows.Fingerprint(code).of(ROW, FAMILY) == before


def test_a_row_that_failed_is_tried_again_with_any_rule(code) -> None:
    row = {"error": "no rule"}
    before = int8_rows.Fingerprint(code).of(row, FAMILY)
    (code / "edgecls" / "quantize" / "rules" / "new.py").write_text("ADDED = 1\n")
    assert int8_rows.Fingerprint(code).of(row, FAMILY) != before
