"""The space of a search: how it is written, what is refused, and how its values come into a recipe."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest

from edgecls.errors import UsageError
from edgecls.recipe import Recipe, load_recipe
from edgecls.search.best import Origin, write_best
from edgecls.search.space import (
    Range,
    applied,
    check_space,
    default_space,
    read_space,
    start_values,
)

FILE = """
train.optimizer.lr: {low: 0.001, high: 0.1, log: true}
train.epochs: {low: 10, high: 30, step: 10}
train.label_smoothing: [0, 0.1]
augment.mixup: [null, {alpha: 0.2}]
"""


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("base", ["data.path=photos"])


def test_a_space_is_read_from_files_and_the_command_line(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "space.yaml").write_text(FILE)
    space = read_space([str(tmp_path / "space.yaml"), "train.label_smoothing=[0, 0.2]"])
    assert space.describe() == {
        "train.optimizer.lr": {"low": 0.001, "high": 0.1, "log": True},
        "train.epochs": {"low": 10, "high": 30, "step": 10},
        "train.label_smoothing": [0, 0.2],
        "augment.mixup": [None, {"alpha": 0.2}],
    }
    assert space.origins["train.epochs"].endswith("space.yaml:3")
    assert len(space.grid) == 3 * 3 * 2 * 2
    assert [values["train.epochs"] for values in space.grid[:12:4]] == [10, 20, 30]
    assert len(check_space(recipe, space)) == 1 + 4  # one more value of each key


@pytest.mark.parametrize(
    ("spec", "grid"),
    [
        ("{low: 0.001, high: 0.1, log: true}", [0.001, 0.01, 0.1]),
        ("{low: 0.001, high: 0.1, log: true, points: 5}", [0.001, 0.00316228, 0.01, 0.0316228, 0.1]),
        ("{low: 1, high: 2}", [1.0, 1.5, 2.0]),
        ("{low: 0.1, high: 0.75, step: 0.3}", [0.1, 0.4, 0.7]),
    ],
)
def test_a_range_has_a_grid(spec: str, grid: list[float]) -> None:
    parameter = read_space([f"train.optimizer.lr={spec}"]).parameters["train.optimizer.lr"]
    assert parameter.grid == pytest.approx(grid, rel=1e-12)
    assert isinstance(parameter, Range) and all(parameter.has(value) for value in grid if parameter.step)
    assert not parameter.has(5.0) and not parameter.has(None) and not parameter.has(True)


def test_whole_numbers_are_those_of_the_recipes_key() -> None:
    space = read_space(["train.epochs={low: 2, high: 9, log: true}", "train.optimizer.lr={low: 1, high: 3}"])
    epochs, lr = space.parameters.values()
    assert epochs.grid == [2, 4, 9] and all(type(value) is int for value in epochs.grid)
    assert lr.grid == [1.0, 2.0, 3.0] and all(type(value) is float for value in lr.grid)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.optimizer.lrr=[1, 2]", "did you mean 'train.optimizer.lr'?"),
        ("train.optimizer.lr={low: 0, high: 1}", "expected greater than 0, got number 0.0"),
        ("train.optimizer.name=[sgd, adamm]", "expected 'name' to be one of"),
        ("train.epochs={low: 1.5, high: 3}", "this key takes whole numbers"),
        ("train.epochs={low: 3, high: 1}", "low 3 is not below high 1"),
        ("train.optimizer.lr={low: 0, high: 1, log: true}", "begins above 0"),
        ("train.optimizer.lr={low: 0.1, high: 1, lo: 3}", "unknown key 'lo'"),
        ("train.optimizer.lr={low: 0.1}", "'high' is missing"),
        ("train.optimizer.lr={low: 0.1, high: 1, whole: true}", "unknown key 'train.optimizer.lr.whole'"),
        ("train.epochs=3", "neither a list nor a range"),
        ("train.epochs=[1]", "one value is nothing to search"),
        ("train.epochs=[1, 2, 1]", "two of its values are equal"),
        ("train.epochs=[2020-01-01, 2020-01-02]", "quote what looks like a date"),
        ("train.epochs=[1,", "not valid YAML"),
        ("quantize.train.epochs=[1, 2]", "changes nothing in the training of the float network"),
        ("name=[a, b]", "changes nothing"),
        ("data.val_fraction=[0.1, 0.2]", "may change the validation images"),
        ("data=[{path: a}, {path: b}]", "may change the validation images"),
        ("nothing.yaml", "no such space"),
    ],
)
def test_bad_input_is_one_line_before_the_first_trial(recipe: Recipe, text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        check_space(recipe, read_space([text]))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert text.partition("=")[0] in str(error.value) and "-o " not in error.value.where


def test_values_that_only_go_together_are_checked_together(recipe: Recipe) -> None:
    values = {"train.schedule.boundaries": [0.3, 0.6], "train.schedule.name": "piecewise"}
    assert applied(recipe, values).train.schedule.model_dump()["boundaries"] == [0.3, 0.6]
    # The value of one optimizer that another one does not know is refused, in whatever combination it comes.
    with pytest.raises(UsageError, match="nesterov"):
        check_space(
            recipe, read_space(["train.optimizer.name=[sgd, adam]", "train.optimizer.nesterov=[true, false]"])
        )


def test_the_default_space_is_around_the_recipe(recipe: Recipe) -> None:
    space = default_space(recipe)
    lr = recipe.train.optimizer.lr
    assert space.describe()["train.optimizer.lr"] == {"low": lr / 5, "high": lr * 5, "log": True}
    assert list(space.parameters) == [
        "train.optimizer.lr",
        "train.optimizer.weight_decay",
        "train.label_smoothing",
        "augment.mixup",
    ]
    check_space(recipe, space)
    own = start_values(recipe, space)
    assert own.keys() == space.parameters.keys() and applied(recipe, own) == recipe


def test_the_default_space_leaves_out_what_has_no_effect() -> None:
    distilled = load_recipe("mv3_ssld", ["distill.hard_weight=0"])
    assert "train.label_smoothing" not in default_space(distilled).parameters
    phases = "phases=[{name: a, train: {optimizer: {lr: 0.1}}}, {name: b, train: {optimizer: {lr: 0.2}}}]"
    phased = load_recipe("mv3_ssld", [phases])
    assert "train.optimizer.lr" not in default_space(phased).parameters
    assert "train.label_smoothing" in default_space(phased).parameters


def test_a_start_is_found_only_inside_the_space(recipe: Recipe) -> None:
    space = read_space(
        ["train.optimizer.lr={low: 0.1, high: 1}", "train.label_smoothing=[0.1, 0.2]", "train.epochs=[1, 2]"]
    )
    assert start_values(recipe, space) == {"train.label_smoothing": 0.1}


@pytest.mark.parametrize("place", ["base", "own.yaml"])
def test_the_best_recipe_says_only_what_differs_and_is_the_trial(tmp_path: Path, place: str) -> None:
    (tmp_path / "photos").mkdir()
    own = tmp_path / "own.yaml"
    own.write_text("base: base\nname: own\ndata: {path: photos}\n")
    name = place if place == "base" else str(own)
    overrides = [f"data.path={tmp_path / 'photos'}", "train.optimizer=sgd"]
    values = {
        "train.optimizer.lr": 1e-5,
        "augment.mixup": {"alpha": 0.2},
        "train.schedule": "piecewise",
    }
    path = tmp_path / "runs" / "best.yaml"
    write_best(path, Origin(name, overrides), values, ["edgecls train best.yaml", "", "x" * 30 + " y" * 60])
    text = path.read_text()
    assert load_recipe(path) == applied(load_recipe(name, overrides), values)
    assert ("base: base\n" if place == "base" else "base: ../own.yaml\n") in text
    assert "epochs" not in text and max(map(len, text.splitlines())) <= 110
    file = "teachers/a/teacher.keras"
    teachers = {"teacher.weights": file, "teacher.train": None}
    write_best(path, Origin("mv3_ssld"), {"train.label_smoothing": 0.1}, [], teachers)
    taught = load_recipe(path).teacher
    assert taught is not None and taught.train is None and taught.weights == str(path.parent / file)


def test_a_logarithmic_grid_has_equal_ratios() -> None:
    grid = Range(low=1e-6, high=1e-2, log=True, points=9).grid
    assert [math.log10(b / a) for a, b in itertools.pairwise(grid)] == pytest.approx([0.5] * 8, abs=1e-5)
