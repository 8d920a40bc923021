"""The commands end to end on a tiny folder of photos, and what they say to bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_run import RECIPE, edgecls, photos


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with a torn JPEG and a text file named .jpg, and its recipe."""
    folder = tmp_path_factory.mktemp("work")
    photos(folder / "photos")
    torn = folder / "photos/red/00.jpg"
    torn.write_bytes(torn.read_bytes()[:200])
    (folder / "photos/blue/note.jpg").write_text("not a photo")
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    done = edgecls(folder, "train", "recipe.yaml")
    assert done.returncode == 0, done.stderr
    assert "2 bad images" in done.stderr
    assert "00.jpg" in done.stderr and "note.jpg" in done.stderr
    return (folder / "runs/latest").resolve()


def test_train_writes_the_run_and_does_nothing_twice(folder: Path, trained: Path) -> None:
    for name in (
        "recipe.yaml",
        "env.json",
        "float.keras",
        "labels.txt",
        "eval.json",
        "report.html",
        "card.md",
    ):
        assert (trained / name).stat().st_size, name
    assert (trained / "labels.txt").read_text() == "blue\nred\n"
    before = (trained / "float.keras").stat().st_mtime_ns
    again = edgecls(folder, "train", "recipe.yaml", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["run"] == str(trained)
    assert (trained / "float.keras").stat().st_mtime_ns == before
    assert len(list(folder.glob("runs/tiny/*"))) == 1


def test_quantize_exports_verifies_and_predicts(folder: Path, trained: Path) -> None:
    done = edgecls(folder, "quantize", "--json")
    result = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    int8 = result["verify"]["files"]["model_int8.tflite"]
    assert (int8["float_ops"], int8["partitions"]) == ([], 1)
    measured = edgecls(
        folder, "bench", "--device", "host", "--threads", "1", "--runs", "5", "--rounds", "1", "--json"
    )
    assert measured.returncode == 0, measured.stderr
    assert {r["model"] for r in json.loads(measured.stdout)["results"]} == {
        "model_fp32.tflite",
        "model_int8.tflite",
    }
    said = edgecls(folder, "predict", str(trained), "photos/red/01.jpg", "--json")
    assert said.returncode == 0, said.stderr
    assert {p["class"] for p in json.loads(said.stdout)["results"][0]["predictions"]} == {"blue", "red"}
    scored = edgecls(folder, "eval", str(trained / "export/model_int8.tflite"), "--json")
    assert scored.returncode == 0, scored.stderr
    kept = {key: value for key, value in result["test"]["int8"].items() if key != "sha256"}
    assert json.loads(scored.stdout)["metrics"] == kept


def test_export_for_other_programs(folder: Path, trained: Path) -> None:
    import keras
    import tensorflow as tf

    done = edgecls(folder, "export", "--format", "saved_model,keras", "--json")
    assert done.returncode == 0, done.stderr
    files = json.loads(done.stdout)["files"]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    expect = keras.models.load_model(trained / "float.keras")(pixels, training=False)
    served, again = tf.saved_model.load(files["saved_model"]), keras.models.load_model(files["keras"])
    assert np.allclose(served.serve(pixels), expect, atol=1e-5)
    assert np.allclose(again(pixels, training=False), expect, atol=1e-5)


BAD = {
    "-o train.optimzer.lr=1": (2, "optimizer"),
    "-o train.epochs=many": (2, "train.epochs"),
    "-o data.path=nowhere": (3, "nowhere"),
    "-o data.path=one": (2, "class"),
    "-o data.max_bad_fraction=0.01": (1, "note.jpg"),
    "-o model.name=MobileNetV3_smal_x0_35": (2, "MobileNetV3_small_x0_35"),
    "-o train.batch_size=500": (2, "batch"),
}


@pytest.mark.parametrize("option", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(folder: Path, option: str) -> None:
    if not (folder / "one").exists():
        photos(folder / "one", classes=("red",))
    code, text = BAD[option]
    done = edgecls(folder, "train", "recipe.yaml", "--run", "bad", *option.split())
    errors = [line for line in done.stderr.splitlines() if line.startswith("edgecls: ")]
    assert (done.returncode, len(errors)) == (code, 1), done.stderr
    assert text in errors[0]
    assert "Traceback" not in done.stderr
    left = [p for p in (folder / "bad").rglob("*") if p.name.startswith(".") and p.name != ".lock"]
    assert not left
    shutil.rmtree(folder / "bad", ignore_errors=True)


def test_a_label_beyond_the_classes_names_its_line(folder: Path) -> None:
    lines = [
        f"photos/{name}/{i:02d}.jpg {label}"
        for label, name in enumerate(("blue", "red"))
        for i in range(1, 20)
    ]
    (folder / "list.txt").write_text("\n".join([*lines, "photos/red/20.jpg 7"]))
    done = edgecls(
        folder,
        "train",
        "recipe.yaml",
        "-o",
        "data.source=list",
        "-o",
        "data.path=list.txt",
        "-o",
        "data.classes=2",
    )
    assert done.returncode == 2
    assert "list.txt:39" in done.stderr


def test_a_checkpoint_of_another_architecture_is_refused(folder: Path, trained: Path) -> None:
    weights = trained / "float.keras"
    done = edgecls(
        folder,
        "train",
        "recipe.yaml",
        "-o",
        "model.name=ResNet18",
        "-o",
        f"model.weights={weights}",
        "--run",
        "other",
    )
    assert done.returncode == 2, done.stderr
    assert "float.keras" in done.stderr.splitlines()[-1]


def test_ctrl_c_keeps_the_checkpoint(folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "edgecls",
        "train",
        "recipe.yaml",
        "-o",
        "train.epochs=500",
        "--run",
        "stopped",
    ]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    last = folder / "stopped/checkpoints/student/last.npz"
    deadline = time.monotonic() + 200
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1].startswith("edgecls: interrupted; checkpoint saved")
    assert last.exists()
