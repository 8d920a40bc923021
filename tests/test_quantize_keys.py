"""Keys of a recipe's ``quantize`` section that prepare the network: layers in float, equalization, AdaRound."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from quantization import ranges, scales_of_kernels
from tiny_run import RECIPE, edgecls, photos, succeed

from edgecls.recipe import load_recipe
from edgecls.run import Run
from edgecls.saving import load_model
from edgecls.workflow.quantized_training import NO_HELP
from edgecls.workflow.stages import _left_out

KEYS = {
    "weights": "per_tensor",
    "ranges": "minmax",
    "keep_float": "['*fc*']",
    "equalize": "true",
    "adaround": "true",
}


@pytest.mark.slow
def test_they_are_followed_and_a_pattern_that_fits_nothing_is_said(tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    (tmp_path / "r.yaml").write_text(RECIPE)
    succeed(tmp_path, "train", "r.yaml", "-o", "train.epochs=1")
    options = [word for key, value in KEYS.items() for word in ("-o", f"quantize.{key}={value}")]
    succeed(tmp_path, "quantize", "tiny", "-o", "quantize.train=null", *options)
    run = Run.find(tmp_path / "runs" / "tiny")
    about = json.loads(run.file("verify.json").read_text())["files"]["model_int8.tflite"]
    assert about["partitions"] == 1 and list(about["in_float"]) == ["fc"], about
    scales = scales_of_kernels(run.file("export", "model_int8.tflite"))
    assert set(scales["CONV_2D"]) | set(scales["DEPTHWISE_CONV_2D"]) == {1}, scales
    wrong = edgecls(tmp_path, "quantize", "tiny", "-o", "quantize.keep_float=['typo*']")
    assert wrong.returncode == 2 and "no layer is called typo*" in wrong.stderr, wrong.stderr


@pytest.mark.slow
def test_training_that_leads_away_from_float_is_undone(quantized: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(quantized, tmp_path / "copy")
    run = Run.find(folder / "runs" / "tiny")
    said = succeed(folder, "quantize", "tiny", "-o", "quantize.train.optimizer.lr=1")
    assert f"qat: {NO_HELP}" in said and run.stamps()["qat"]["figures"]["warnings"] == [NO_HELP]
    undone = run.file("export", "model_int8.tflite").read_bytes()
    succeed(folder, "quantize", "tiny", "-o", "quantize.train=null")
    assert run.file("export", "model_int8.tflite").read_bytes() == undone


@pytest.mark.slow
def test_learned_ranges_are_others_and_the_file_is_exact(quantized: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(quantized, tmp_path / "copy")
    run = Run.find(folder / "runs" / "tiny")
    calibrated = ranges(load_model(run.file("qat.keras")))
    options = ("quantize.learn_ranges=true", "quantize.distill=none", "quantize.train.optimizer.lr=0.01")
    succeed(folder, "quantize", "tiny", *(word for option in options for word in ("-o", option)))
    assert ranges(load_model(run.file("qat.keras"))) != calibrated
    about = json.loads(run.file("verify.json").read_text())["files"]["model_int8.tflite"]
    assert about["partitions"] == 1 and not about["in_float"], about


def test_a_key_with_its_default_leaves_stamps_of_older_runs_alone() -> None:
    quantize = load_recipe("mv3_ssld").quantize
    assert _left_out(quantize) == {*KEYS, "learn_ranges"}
    changed = load_recipe("mv3_ssld", ["quantize.equalize=true"]).quantize
    assert _left_out(changed) == {*KEYS, "learn_ranges"} - {"equalize"}
