"""Teachers, cached views, unlabeled images and mutual learning end to end on a tiny data set."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from tiny_run import NETWORK, edgecls, photos, succeed

import edgecls as package
from edgecls.console import Console
from edgecls.data.pipeline import Batches
from edgecls.recipe import load_recipe
from edgecls.workflow.common import load_data, recipe_preprocess

RECIPE = f"""
name: taught
model: {{name: {NETWORK}, input_size: 32, resize_short: 32}}
teacher: {{name: {NETWORK}, weights: one.keras, others: [{{name: {NETWORK}, weights: two.keras}}]}}
data: {{source: folder, path: photos, extra: [{{path: more, labels: false}}]}}
augment: {{crop_scale: [0.5, 1.0], flip: horizontal}}
train: {{epochs: 2, batch_size: 8, optimizer: {{lr: 0.01}}, label_smoothing: 0.1}}
distill: {{loss: js, teacher_bn: infer, views: 2, store: answers}}
"""


def teacher(path: Path, seed: int, classes: int = 2) -> None:
    keras.utils.set_random_seed(seed)
    package.build_model(NETWORK, classes, 32, include_preprocessing=True).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of which most photos have no label, two networks, a recipe, and its run."""
    folder = tmp_path_factory.mktemp("taught")
    photos(folder / "photos", count=8)
    photos(folder / "more", count=12, start=50)
    for seed, name in enumerate(("one", "two"), 1):
        teacher(folder / f"{name}.keras", seed)
    (folder / "recipe.yaml").write_text(RECIPE)
    said = succeed(folder, "train", "recipe.yaml")
    split = json.loads((folder / "runs/latest/split.json").read_text())["splits"]["train"]
    assert split["unlabelled"] == 24
    size = f"the teacher's answers: {split['count']} images x 2 views x 4 bytes = 0.0 MiB in "
    assert size in said and "2 to compute" in said and (folder / "answers/view-0001.npy").exists()
    return folder


def test_the_answers_are_the_mean_of_the_teachers(folder: Path) -> None:
    recipe = load_recipe(folder / "recipe.yaml")
    data = load_data(recipe.data, Console())
    feed = Batches(
        data.train,
        recipe_preprocess(recipe),
        4,
        training=True,
        augment=recipe.augment,
        order=lambda epoch: np.arange(4),
        views=2,
    )
    run = next(folder.glob("runs/taught/*"))
    models = [keras.models.load_model(run / name) for name in ("teacher.keras", "teacher.2.keras")]
    for view in range(2):
        ((pixels, _),) = feed.epoch(view)
        mean = np.mean([keras.ops.softmax(model(pixels, training=False)) for model in models], axis=0)
        kept = np.load(folder / f"answers/view-{view:04d}.npy")[:4].astype(np.float32)
        np.testing.assert_allclose(np.exp(kept), mean, rtol=5e-3)


def test_two_students_learn_from_each_other(folder: Path) -> None:
    options = ["distill={mutual: true, loss: kl, hard_weight: 1.0, views: null, store: null}"]
    options += ["teacher={weights: null, others: []}", "train.epochs=1", "name=mutual"]
    said = succeed(folder, "train", "recipe.yaml", *(part for o in options for part in ("-o", o)))
    assert f"learns with a second student, {NETWORK}, which is dropped afterwards" in said
    run = folder / "runs/latest"
    assert not list(run.glob("teacher*")) and (run / "float.keras").exists()
    assert "between two students" in (run / "card.md").read_text()
    assert len(keras.models.load_model(run / "float.keras").outputs) == 1


def test_a_teacher_of_other_classes_is_one_line_before_any_training(folder: Path) -> None:
    teacher(folder / "five.keras", 3, classes=5)
    options = ["-o", "teacher.weights=five.keras", "-o", "name=five"]
    done = edgecls(folder, "train", "recipe.yaml", *options)
    assert done.returncode == 2
    assert "the teacher knows 5 classes, the data has 2" in done.stderr.splitlines()[-1]
    assert not list(folder.glob("runs/five/*/float.keras"))


def test_a_change_of_one_teacher_redoes_it_and_its_answers_are_not_taken_for_those_of_the_former(
    folder: Path,
) -> None:
    run = ("--run", str(next(folder.glob("runs/taught/*"))))
    again = succeed(folder, "train", "recipe.yaml", *run)
    assert "teacher: done before" in again and "student: done before" in again
    teacher(folder / "two.keras", 7)
    planned = edgecls(folder, "train", "recipe.yaml", *run, "--dry-run", "--json")
    assert set(json.loads(planned.stdout)["run"]["to_do"]) == {"teacher.2"}
    done = edgecls(folder, "train", "recipe.yaml", *run)
    assert "teacher: done before" in done.stderr and "teacher.2: again" in done.stderr
    assert (
        done.returncode == 2 and "made from something else (changed: teacher" in done.stderr.splitlines()[-1]
    )
