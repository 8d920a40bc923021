"""No stage is taken for done when its inputs have changed, and nothing old is shown for new."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_run import RECIPE, edgecls, photos, succeed

from edgecls.workflow.sanity import warnings_of_scores, warnings_of_training


@pytest.fixture
def folder(quantized: Path, tmp_path: Path) -> Path:
    """A copy of the quantized run and its photos that a test may change."""
    copy = tmp_path / "work"
    shutil.copytree(quantized, copy, symlinks=True)
    recipe = next(copy.glob("runs/tiny/*/recipe.yaml"))
    recipe.write_text(recipe.read_text().replace(str(quantized), str(copy)))
    return copy


def newest(folder: Path) -> Path:
    return (folder / "runs/latest").resolve()


def read(run: Path, name: str) -> Any:
    return json.loads((run / name).read_text())


def test_what_is_done_is_kept(folder: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in newest(folder).glob("*.keras")}
    texts = succeed(folder, "train", "recipe.yaml") + succeed(folder, "quantize")
    assert texts.count("done before, kept") >= 5 and "again" not in texts
    assert {p: p.stat().st_mtime_ns for p in newest(folder).glob("*.keras")} == before


def test_photos_that_were_replaced_under_their_names_train_anew(folder: Path) -> None:
    run = newest(folder)
    weights, scores = (run / "float.keras").read_bytes(), read(run, "eval.json")
    for number, path in enumerate(sorted(folder.glob("photos/*/*.jpg"))):
        noise = np.random.default_rng(number).integers(0, 256, (40, 40, 3)).astype(np.uint8)
        Image.fromarray(noise).save(path)
    refused = edgecls(folder, "quantize")
    assert refused.returncode == 2 and "have changed since this run was trained" in refused.stderr
    assert edgecls(folder, "eval").returncode == 2, "a test image may have been trained on before"
    text = succeed(folder, "train", "recipe.yaml")
    assert "student: again (changed: images.train" in text and "trained anew" in text
    assert newest(folder) == run and (run / "float.keras").read_bytes() != weights
    assert read(run, "eval.json")["split_sha256"] != scores["split_sha256"]
    assert set(read(run, "eval.json")["models"]) == {"float"}
    assert "export/model_int8.tflite" in text, (
        "what was made from the old network steps aside, and it is said"
    )
    assert not list(run.glob("export/*.tflite")) and list(run.glob("old/*/export/model_int8.tflite"))
    said = succeed(folder, "predict", str(run), "photos/red/01.jpg", "--json")
    assert json.loads(said.splitlines()[0])["model"].endswith("float.keras")


def test_labels_that_were_swapped_train_anew(folder: Path) -> None:
    for number in range(12):
        red, blue = (folder / f"photos/{name}/{number:02d}.jpg" for name in ("red", "blue"))
        red.rename(folder / "kept.jpg")
        blue.rename(red)
        (folder / "kept.jpg").rename(blue)
    assert "student: again (changed: images.train" in succeed(folder, "train", "recipe.yaml")


def test_quantize_with_other_settings_trains_anew_and_the_run_keeps_them(folder: Path) -> None:
    run = newest(folder)
    weights = (run / "qat.keras").read_bytes()
    text = succeed(folder, "quantize", "-o", "quantize.train.optimizer.lr=0.05")
    assert "qat: again (changed: quantize.train.optimizer.lr 0.0001 -> 0.05)" in text
    assert "export_int8: again" in text or "export/model_int8.tflite" in text
    assert (run / "qat.keras").read_bytes() != weights
    assert "lr: 0.05" in (run / "recipe.yaml").read_text()
    assert "again" not in succeed(folder, "quantize"), "the run goes on with what it was told"


def test_quantize_cannot_change_what_was_trained(folder: Path) -> None:
    before = (newest(folder) / "recipe.yaml").read_text()
    done = edgecls(folder, "quantize", "-o", "train.epochs=9")
    assert done.returncode == 2 and "train.epochs 2 -> 9" in done.stderr
    assert (newest(folder) / "recipe.yaml").read_text() == before


def test_corrected_test_labels_are_scored_anew_and_nothing_else(tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    photos(tmp_path / "test", count=4, start=50)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    command = ("train", "recipe.yaml", "-o", "data.test_path=test", "-o", "train.epochs=1")
    succeed(tmp_path, *command)
    before = read(newest(tmp_path), "eval.json")["models"]["float"]
    (tmp_path / "test/red/50.jpg").rename(tmp_path / "test/blue/corrected.jpg")
    assert "student: done before, kept" in succeed(tmp_path, *command)
    after = read(newest(tmp_path), "eval.json")["models"]["float"]
    assert [row["count"] for row in before["per_class"]] == [4, 4]
    assert [row["count"] for row in after["per_class"]] == [5, 3]


def test_other_weights_in_the_same_file_train_anew(folder: Path) -> None:
    first = newest(folder)
    shutil.copy(first / "float.keras", folder / "first.keras")
    shutil.copy(
        first / "teacher.keras" if (first / "teacher.keras").exists() else first / "float.keras", folder
    )
    command = ("train", "recipe.yaml", "-o", "model.weights=first.keras", "-o", "train.epochs=1")
    succeed(folder, *command)
    assert "kept" in succeed(folder, *command)
    shutil.copy(newest(folder) / "float.keras", folder / "first.keras")
    assert "student: again (changed: weights" in succeed(folder, *command)


def test_a_run_is_locked_while_it_is_measured(folder: Path) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"from edgecls.run import Run; Run({str(newest(folder))!r}).lock(); print(); input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None and holder.stdout.readline()
    done = edgecls(folder, "bench", "--device", "host", "--rounds", "1", "--runs", "1")
    holder.communicate("\n", timeout=60)
    assert done.returncode == 1 and f"process {holder.pid} works in this run" in done.stderr


def test_figures_that_the_run_cannot_keep_are_shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, value: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("edgecls.workflow.benching.write_json", full)
    done = edgecls(folder, "bench", "--device", "host", "--threads", "1", "--rounds", "1", "--runs", "1")
    assert done.returncode == 3 and "no disk space left" in done.stderr
    assert "model_int8.tflite" in done.stdout
    monkeypatch.undo()
    (newest(folder) / "bench.json").mkdir()
    before = edgecls(folder, "bench", "--device", "host")
    assert before.returncode == 2 and "bench.json" in before.stderr, "refused before anything is measured"


# Before the work


def test_a_recipe_that_fails_at_once_leaves_no_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, latest = sorted((folder / "runs").rglob("*")), newest(folder)
    bad = {
        "data.path=nowhere": (3, "nowhere"),
        "model.weights=gone.keras": (2, "gone.keras"),
        "model.weights=10w": (2, "10w"),
        "train.batch_size=500": (2, "(train.batch_size)"),
        "quantize.train.batch_size=500": (2, "(quantize.train.batch_size)"),
        "model.name=InceptionV3": (2, "InceptionV3"),
    }
    for option, (code, text) in bad.items():
        for extra in ((), ("--dry-run",)):
            done = edgecls(folder, "train", "recipe.yaml", "-o", option, "-o", "seed=5", *extra)
            assert done.returncode == code and text in done.stderr, (option, done)
    monkeypatch.setenv("EDGECLS_MIRROR", "http://127.0.0.1:9")
    done = edgecls(folder, "train", "recipe.yaml", "-o", "model.weights=imagenet")
    assert done.returncode == 3 and "cannot be downloaded" in done.stderr, done
    assert sorted((folder / "runs").rglob("*")) == runs and newest(folder) == latest


def test_a_warm_up_that_does_not_end_is_said(folder: Path) -> None:
    command = ("train", "recipe.yaml", "--dry-run", "-o", "train.schedule={name: cosine, warmup_epochs: 3}")
    for epochs, said in ((3, True), (4, False)):
        text = succeed(folder, *command, "-o", f"train.epochs={epochs}")
        assert ("warning: train: the warm-up of 3 epochs does not end in 3" in text) == said, text


def test_a_dry_run_says_what_becomes_of_the_run(folder: Path) -> None:
    def fate(*args: str) -> dict[str, Any]:
        return json.loads(succeed(folder, "train", "recipe.yaml", "--dry-run", "--json", *args))["run"]

    assert fate("-o", "seed=7") == {"path": None, "state": "new"}
    assert fate() == {"path": str(newest(folder)), "state": "kept", "to_do": {}}
    photos(folder / "photos", count=8, start=70)
    changed = fate()
    assert changed["state"] == "continued" and "images.train.count" in changed["to_do"]["student"]


# Labels that are not there


def test_without_labelled_test_images_everything_works_but_the_gate(tmp_path: Path) -> None:
    photos(tmp_path / "photos", count=12)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    unsplit = ("-o", "data.test_fraction=0", "-o", "data.val_fraction=0", "-o", "train.epochs=1")
    text = succeed(tmp_path, "train", "recipe.yaml", *unsplit)
    assert "nothing to score" in text and "the weights of the last epoch are kept" in text
    gate = edgecls(tmp_path, "quantize", "--max-drop", "1")
    assert gate.returncode == 2 and "--max-drop" in gate.stderr
    assert not (newest(tmp_path) / "qat.keras").exists(), "refused before the work"
    assert "nothing to score" in succeed(tmp_path, "quantize")


def test_distillation_needs_no_labels_at_all(folder: Path) -> None:
    unlabelled = folder / "unlabelled"
    unlabelled.mkdir()
    for path in folder.glob("photos/*/*.jpg"):
        shutil.copy(path, unlabelled / f"{path.parent.name}{path.name}")
    shutil.copy(newest(folder) / "float.keras", folder / "teacher.keras")
    text = succeed(
        folder,
        "train",
        "recipe.yaml",
        *("-o", "name=unlabelled", "-o", "data.path=unlabelled", "-o", "data.classes=[blue, red]"),
        *("-o", "teacher={name: MobileNetV1_x0_25, weights: teacher.keras}", "-o", "distill={}"),
        *("-o", "train.epochs=1"),
    )
    assert "nothing to score" in text and (newest(folder) / "float.keras").exists()
    rows = [json.loads(line) for line in (newest(folder) / "metrics.jsonl").read_text().splitlines()]
    assert "accuracy" not in rows[-1] and rows[-1]["loss"] >= 0
    assert "nothing to score" in succeed(folder, "quantize")


def test_a_gate_on_int8_needs_an_int8_file(folder: Path) -> None:
    before = (newest(folder) / "recipe.yaml").read_text()
    done = edgecls(folder, "quantize", "--max-drop", "1", "-o", "export.precisions=[fp32]")
    assert done.returncode == 2 and "export.precisions" in done.stderr
    assert (newest(folder) / "recipe.yaml").read_text() == before, "refused before the work"


def test_a_batch_that_cannot_be_filled_is_named_whatever_is_exported(folder: Path) -> None:
    options = ("-o", "export.precisions=[fp32]", "-o", "quantize.train.batch_size=500")
    done = edgecls(folder, "quantize", *options)
    assert done.returncode == 2 and "(quantize.train.batch_size)" in done.stderr


# Interruptions and warnings


def test_an_interruption_before_the_first_checkpoint_says_so(folder: Path) -> None:
    command = [sys.executable, "-m", "edgecls", "train", "recipe.yaml", "--run", "stopped", "-o", "seed=3"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    log, deadline = folder / "stopped/log.jsonl", time.monotonic() + 200
    while not (log.exists() and '"stage"' in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)  # the network is being built
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "student had saved nothing yet" in errors.splitlines()[-1]
    assert not (folder / "stopped/checkpoints").exists()


def test_one_answer_for_everything_is_warned_of() -> None:
    rows = [{"count": 9}, {"count": 7}, {"count": 0}, {"count": 3}]
    assert warnings_of_scores({"predicted_classes": 1, "per_class": rows}) == [
        "predicts 1 of 3 classes, whatever it sees"
    ]
    assert warnings_of_scores({"predicted_classes": 2, "per_class": rows}) == []


def test_unsettled_batch_statistics_are_warned_of_with_their_key() -> None:
    epochs = [{"accuracy": 0.95, "val_top1": 0.5}] * 4
    (text,) = warnings_of_training(epochs, 10, 0.99, "train")
    assert "after 40 steps" in text and "train.bn_momentum" in text
    assert warnings_of_training(epochs, 100, 0.99, "train") == [], "after 400 steps it is overfitting"
    assert warnings_of_training(epochs, 10, None, "train") == []
    assert warnings_of_training([{"accuracy": 0.6, "val_top1": 0.5}], 10, 0.99, "train") == []
