"""Several runs side by side: figures, paired tests on shared images, differences of recipes."""

import json

import numpy as np
import pytest
from pages import Page, read
from run_folders import RECIPE, finished_run, trained_run, write

from edgecls.cli.main import main
from edgecls.metrics import paired
from edgecls.report import compare, comparison, write_comparison
from edgecls.run import Run

LABELS = np.arange(100) % 2
RIGHT = {"first": np.arange(100) >= 10, "second": np.arange(100) >= 25}  # 15 images more are wrong


@pytest.fixture
def two(tmp_path):
    """Two runs with the answers behind their scores."""
    runs = []
    for name, right in RIGHT.items():
        run = finished_run(trained_run(tmp_path / name / "20260102-030405"))
        keep_answers(run, right)
        runs.append(run)
    recipe = RECIPE.replace("epochs: 3", "epochs: 5").replace("weights: null", "weights: '<b>w</b>.npz'")
    runs[1].file("recipe.yaml").write_text(recipe)
    return runs


def keep_answers(run, right):
    answered = np.where(right, LABELS, 1 - LABELS)
    arrays = {f"{kind}_class": answered for kind in ("float", "int8")}
    np.savez(run.file("answers.npz"), labels=LABELS, **arrays)
    document = json.loads(run.file("eval.json").read_text())
    for kind in ("float", "int8"):
        document["models"][kind] |= {"top1": float(right.mean()), "ece": 0.125}
    write(run, "eval.json", document)


def test_figures_stand_side_by_side(two, tmp_path):
    page = Page(compare([two[0], Run(tmp_path / "absent")]))
    assert "2 runs compared" in page.text
    assert "80.8 % 77.8–83.8 % (95 %)" in page.text and "12.5 % –" in page.text
    assert "3.20 ms, 1 thread –" in page.text


def test_paired_tests_are_of_the_kept_answers(two):
    for test in comparison(two)["paired"]:
        expect = paired(RIGHT["first"], RIGHT["second"])
        assert test == {"run": 1, "model": test["model"], **expect} and expect["first_only"] == 15
    assert "−15.0 points" in Page(compare(two)).text and "worse" in Page(compare(two)).text
    keep_answers(two[1], RIGHT["first"])
    assert {test["p"] for test in comparison(two)["paired"]} == {1.0}
    assert "no sure difference" in Page(compare(two)).text


def test_what_cannot_be_paired_says_why(two):
    def whys():
        return {test["why"] for test in comparison(two)["paired"]}

    answers = two[1].file("answers.npz").read_bytes()
    two[1].file("answers.npz").write_bytes(answers[: len(answers) // 2])
    assert whys() == {"the answers are not kept; edgecls quantize RUN keeps them"}
    keep_answers(two[1], np.arange(100) >= 20)
    document = json.loads(two[1].file("eval.json").read_text())
    document["models"]["float"]["top1"] = document["models"]["int8"]["top1"] = 0.5
    write(two[1], "eval.json", document)
    assert whys() == {"the answers are not kept; edgecls quantize RUN keeps them"}, "they are of other models"
    split = json.loads(two[1].file("split.json").read_text())
    split["splits"]["test"]["sha256"] = "of others"
    write(two[1], "split.json", split)
    write(two[1], "eval.json", document | {"split_sha256": "of others"})
    assert whys() == {"scored on other images"}
    write(two[1], "eval.json", document | {"models": {}})
    assert whys() == {"not scored in both runs"}


def test_runs_of_other_classes_and_of_one_name(two):
    assert "do not compare" not in Page(compare(two)).text
    document = json.loads(two[1].file("eval.json").read_text())
    write(two[1], "eval.json", document | {"classes": ["good", "cracked", "torn"]})
    found = comparison(two)
    assert (
        not found["same_classes"]
        and {"label": "classes", "texts": ["2", "3"], "details": ["", ""]} in found["figures"]
    )
    assert "The runs know other classes: their accuracies do not compare." in Page(compare(two)).text
    assert [run["title"] for run in found["runs"]] == [f"demo 20260102-030405 ({run.path})" for run in two]
    assert comparison(two[:1])["runs"][0]["title"] == "demo 20260102-030405"


def test_recipes_are_compared_key_by_key(two):
    document = comparison(two)
    found = {row["key"]: row["values"] for row in document["recipe"]}
    assert found == {"train.epochs": ["3", "5"], "model.weights": ["None", "<b>w</b>.npz"]}
    assert "<b>" not in compare(two)


def test_the_command(two, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def call(*args):
        with pytest.raises(SystemExit) as caught:
            main(["report", *args])
        return int(caught.value.code or 0), *capsys.readouterr()

    paths = [str(run.path) for run in two]
    code, out, _ = call(*paths)
    assert code == 0 and "worse" in out and "train.epochs" in out
    assert "2 runs compared" in read(tmp_path / "compare.html").text
    code, out, _ = call(*paths, "--json", "--save", "other.html")
    document = json.loads(out)
    assert code == 0 and document["schema"] == "edgecls.compare/1" and document["report"] == "other.html"
    assert document == write_comparison(two, "other.html")
    code, _, err = call(paths[0], "--save", "x.html")
    assert code == 2 and "--save" in err
