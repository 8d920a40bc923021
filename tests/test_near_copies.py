"""scripts/near_copies.py: a run's scores with and without near-copies, and the sections of docs/data.md."""

import sys
from pathlib import Path

import numpy as np
import pytest

from edgecls.errors import UsageError

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
import near_copies


def test_scores_are_those_of_the_chosen_images():
    labels = np.array([0, 0, 0, 0, 1, 1])
    leaks = np.array([1, 1, 0, 0, 1, 0], bool)
    answers = {
        "float_class": np.array([0, 0, 1, 0, 1, 1], np.int32),
        "float_probability": np.full(6, 0.9, np.float32),
        "int8_class": np.array([0, 0, 1, 1, 1, 0], np.int32),
    }
    found = near_copies.scores(answers, labels, leaks, ["ok", "defective"])
    assert list(found) == ["float", "int8"]
    rows = {(model, name): row for model, groups in found.items() for name, row in groups.items()}
    for key, images, top1, balanced in (
        (("float", "all"), 6, 5 / 6, (3 / 4 + 1) / 2),
        (("float", "without near-copies"), 3, 2 / 3, (1 / 2 + 1) / 2),
        (("float", "near-copies alone"), 3, 1, 1),
        (("int8", "without near-copies"), 3, 0, 0),
    ):
        assert rows[key]["images"] == images
        assert rows[key]["top1"] == pytest.approx(top1)
        assert rows[key]["balanced_accuracy"] == pytest.approx(balanced)
    table = near_copies.table_of_scores(found)
    assert table.count("\n") == 7 and "| int8 | without near-copies | 3 | 0.0000 | 0.0000 |" in table


def test_a_section_is_written_between_its_markers():
    begin = near_copies.BEGIN.format("scores of a run", "--run RUN ")
    page = near_copies.PAGE.read_text(encoding="utf-8")
    for section, option in (
        ("scores of a run", "--run RUN "),
        ("built-in photographs", ""),
        ("altered copies", "--check PHOTOS "),
    ):
        first = near_copies.with_section(page, section, option, "one")
        assert near_copies.with_section(first, section, option, "two") == first.replace(
            "\n\none\n", "\n\ntwo\n"
        )
    with pytest.raises(UsageError, match="no markers"):
        near_copies.with_section(page.replace(begin, ""), "scores of a run", "--run RUN ", "x")
