"""scripts/near_copies.py: a run's scores with and without near-copies, and the sections of docs/data.md."""

import sys
from pathlib import Path

import numpy as np
import pytest
from photos import folder
from PIL import Image

from edgecls.data.sources import load_dataset
from edgecls.errors import UsageError
from edgecls.files import write_json
from edgecls.recipe import load_recipe
from edgecls.run import Run

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


def test_a_run_is_scored_without_its_near_copies(tmp_path, monkeypatch):
    """The files of a run as ``edgecls eval`` writes them; one test image was copied into the training images."""
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))
    for purpose, start in (("train", 0), ("val", 100), ("test", 200)):
        folder(tmp_path / "photos" / purpose, {"cat": 4, "dog": 4}, start=start)
    copied = tmp_path / "photos" / "train" / "cat" / "copied.jpg"
    Image.open(tmp_path / "photos" / "test" / "cat" / "001.png").convert("RGB").save(copied, quality=95)
    run = Run(tmp_path / "run")
    run.path.mkdir()
    run.file("recipe.yaml").write_text(
        f"name: x\nmodel: {{name: MobileNetV1_x0_25}}\ndata: {{path: '{tmp_path}/photos'}}\n"
    )
    test = load_dataset(load_recipe(run.file("recipe.yaml")).data).test
    wrong = np.where(np.arange(8) == test.names.index("cat/001.png"), 1 - test.labels, test.labels)
    np.savez(run.file("answers.npz"), float_class=test.labels, int8_class=wrong.astype(np.int32))
    write_json(run.file("eval.json"), {"split_sha256": test.sha256})
    found = near_copies.scores_of(Run.find(str(run.path)))
    assert found["test_images_with_a_near_copy_elsewhere"] == 1 and found["test_images"] == 8
    assert found["scores"]["int8"]["all"]["top1"] == pytest.approx(7 / 8)
    assert found["scores"]["int8"]["without near-copies"]["top1"] == 1
    assert found["scores"]["int8"]["near-copies alone"]["top1"] == 0
    write_json(run.file("eval.json"), {"split_sha256": "other"})
    with pytest.raises(UsageError, match="the test images have changed"):
        near_copies.scores_of(run)


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
