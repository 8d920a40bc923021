"""``edgecls tune``: real trials on a tiny data set, and what the command makes of everything that can go wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import tensorflow as tf
from photos import split_of
from tiny_run import NETWORK, RECIPE, edgecls, photos, succeed

from edgecls.data.pipeline import Batches
from edgecls.data.preprocess import Preprocess
from edgecls.errors import EdgeclsError, Interrupted, MissingError
from edgecls.recipe import load_recipe
from edgecls.run import Run
from edgecls.search.space import applied
from edgecls.workflow.trials import Worker, _forget_networks

SPACE = ["--space", "train.optimizer.lr={low: 0.001, high: 0.1, log: true}"]
GRID = ["--search", "grid", "--space", "train.optimizer.lr=[0.01, 0.02, 0.03]"]
TAUGHT = f"""
base: recipe.yaml
name: taught
train: {{epochs: 1}}
teacher: {{name: {NETWORK}, weights: random}}
distill: {{hard_weight: 0.5}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photos(tmp_path / "photos")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "taught.yaml").write_text(TAUGHT)
    return tmp_path


def tuned(folder: Path, *args: str) -> dict[str, Any]:
    done = edgecls(folder, "tune", *args, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["schema"] == "edgecls.tune/1"
    return result


@pytest.mark.slow
def test_killed_resumed_pruned(folder: Path) -> None:
    """``kill -9`` in the first trial; another process goes on with it; a trial that is behind ends early."""
    command = ["tune", "taught.yaml", *SPACE, "--trials", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "edgecls", *command], cwd=folder, stderr=subprocess.PIPE
    )
    study_folder = folder / "runs/taught/tune/main"
    log = study_folder / "trials/0000/log.jsonl"
    deadline = time.monotonic() + 300
    while not (log.exists() and '"stage": "student"' in log.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    teacher = next(study_folder.glob("teachers/*/teacher.keras")).stat().st_mtime_ns

    result = tuned(folder, "taught.yaml", *SPACE, "--trials", "1")
    (trial,) = result["trials"]
    recipe = load_recipe(folder / "taught.yaml")
    assert trial["number"] == 0 and trial["state"] == "complete" and trial["epochs"] == 1
    assert trial["values"] == {
        "train.optimizer.lr": recipe.train.optimizer.lr
    }  # the recipe itself comes first
    run = Run(trial["run"])
    (epoch,) = run.metrics()
    assert (
        trial["score"] == epoch["val_balanced_accuracy"] == run.stamps()["student"]["figures"]["best_value"]
    )
    assert [p.stat().st_mtime_ns for p in study_folder.glob("teachers/*/teacher.keras")] == [teacher]
    assert not run.file("checkpoints").exists() and not run.file("eval.json").exists()
    splits = json.loads(run.file("split.json").read_text())["splits"]
    assert splits["val"]["count"] and not splits["test"]["count"]
    assert not (folder / "runs/latest").exists()  # a trial is not the run that other commands take
    best = load_recipe(result["best_recipe"])
    assert best.override(["teacher.weights=random"]) == applied(recipe, trial["values"])

    study = optuna.load_study(study_name="main", storage=f"sqlite:///{folder / 'runs/taught/tune/optuna.db'}")
    good = {"params": {"train.optimizer.lr": 0.05}, "distributions": study.trials[-1].distributions}
    for _ in range(4):
        study.add_trial(optuna.trial.create_trial(value=1.0, intermediate_values={0: 1.5}, **good))
    result = tuned(folder, "taught.yaml", *SPACE, "--trials", "6")
    pruned = result["trials"][-1]
    assert pruned["state"] == "pruned" and pruned["score"] is None and pruned["epochs"] == 1
    left = {path.name for path in Path(pruned["run"]).iterdir()}
    assert {"recipe.yaml", "metrics.jsonl", "log.jsonl"} <= left
    assert not left & {"checkpoints", "teacher.keras", "float.keras"}
    assert (
        result["best"]["score"] == 1.0 and '"event": "pruned"' in Path(pruned["run"], "log.jsonl").read_text()
    )
    page = Path(result["report"]).read_text()
    assert page.count("<svg") >= 2 and "train.optimizer.lr" in page.replace("<wbr>", "")


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> dict[float, Any]:
    """What trials are worth by their learning rate, in place of trainings; an exception is raised."""
    found: dict[float, Any] = {0.01: 0.6, 0.02: 0.8, 0.03: 0.7}

    def train(self: Worker, trial: optuna.Trial, recipe: Any, values: Any, run: Run) -> float:
        score = found[values["train.optimizer.lr"]]
        if isinstance(score, Exception):
            raise score
        return score

    monkeypatch.setattr(Worker, "_train", train)
    return found


def test_a_grid_ends_and_a_diverged_trial_is_told(folder: Path, scores: dict[float, Any]) -> None:
    scores[0.01] = EdgeclsError("the loss is no longer finite: step 3")
    result = tuned(folder, "recipe.yaml", *GRID)
    assert [row["state"] for row in result["trials"]] == ["failed", "complete", "complete"]
    assert result["trials"][0]["error"].startswith("the loss is no longer finite")
    assert result["best"]["values"] == {"train.optimizer.lr": 0.02}
    assert load_recipe(result["best_recipe"]).train.optimizer.lr == 0.02
    assert "the loss is no longer finite" in Path(result["report"]).read_text()
    text = succeed(folder, "tune", "recipe.yaml", *GRID)  # nothing is left to do
    assert "3 trials: 2 complete, 1 failed" in text and "edgecls train" in text
    photos(folder / "photos", count=2, start=24)
    done = edgecls(folder, "tune", "recipe.yaml", *GRID)
    assert done.returncode == 2 and "was begun otherwise: student.images" in done.stderr


def test_a_search_that_was_stopped_goes_on_with_the_same_trial(
    folder: Path, scores: dict[float, Any]
) -> None:
    scores[0.02] = Interrupted("interrupted; checkpoint saved")
    done = edgecls(folder, "tune", "recipe.yaml", *GRID)
    assert done.returncode == 130 and "checkpoint saved" in done.stderr
    assert load_recipe(folder / "runs/tiny/tune/main/best.yaml").train.optimizer.lr == 0.01
    scores[0.02] = MissingError("no disk space left")  # what the computer lacks is no fault of these values
    assert edgecls(folder, "tune", "recipe.yaml", *GRID).returncode == 3
    scores[0.02] = 0.8
    result = tuned(folder, "recipe.yaml", *GRID)
    assert [(row["number"], row["score"]) for row in result["trials"]] == [(0, 0.6), (1, 0.8), (2, 0.7)]
    assert [Path(row["run"]).name for row in result["trials"]] == ["0000", "0001", "0002"]
    assert result["best"]["number"] == 1


def test_equal_values_are_trained_once(folder: Path, scores: dict[float, Any], monkeypatch: Any) -> None:
    space = ["--space", "train.optimizer.lr=[0.01, 0.02]", "--trials", "6"]
    trained: list[float] = []
    train = Worker._train
    monkeypatch.setattr(
        Worker, "_train", lambda *args: trained.append(args[3]["train.optimizer.lr"]) or train(*args)
    )
    result = tuned(folder, "recipe.yaml", *space)
    assert len(result["trials"]) == 6 and sorted(trained) == [0.01, 0.02]
    assert {(row["values"]["train.optimizer.lr"], row["score"]) for row in result["trials"]} == {
        (0.01, 0.6),
        (0.02, 0.8),
    }


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["-o", "data.val_fraction=0"], 2, "no labeled validation images"),
        (["--space", "train.batch_size=[8, 4096]"], 2, "do not fill a batch of 4096"),
        (["--space", "train.epoch=[1, 2]"], 2, "did you mean 'train.epochs'?"),
        (["--study", "a/b"], 2, "is no name for a study"),
        (["--storage", "sqlite:////nowhere/x.db"], 3, "the storage does not answer"),
    ],
)
def test_bad_input(folder: Path, args: list[str], code: int, message: str) -> None:
    done = edgecls(folder, "tune", "recipe.yaml", *args)
    assert done.returncode == code and message in done.stderr, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("edgecls: error: ")
    assert not list(folder.glob("runs/tiny/tune/*/trials"))


def test_several_workers_of_one_training_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}
    monkeypatch.setitem(
        os.environ, "TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}})
    )
    done = edgecls(folder, "tune", "recipe.yaml")
    assert done.returncode == 2 and "unset TF_CONFIG" in done.stderr


def test_the_images_of_a_trial_are_let_go() -> None:
    """TensorFlow keeps a default graph even after a new one was made, and with it what pipelines have called."""
    graph = tf.compat.v1.get_default_graph()
    split = split_of(np.zeros((8, 32, 32, 3), np.uint8), np.arange(8) % 2)
    feed = Batches(split, Preprocess(size=32, resize_short=32), 4)
    assert len(list(feed)) == 2 and tf.compat.v1.get_default_graph() is graph
    feed.close()
    feed = weakref.ref(feed)
    _forget_networks()
    assert feed() is None
