"""The table of what int8 costs compares what it says it compares."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from edgecls.errors import MissingError

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
import experiment_int8 as experiment
import experiments

FEW = "GhostNet_x0_5"


@pytest.mark.parametrize("name", experiment.ROWS)
def test_a_row_is_one_float_training_and_its_int8_file(name: str) -> None:
    recipe = experiment.make_recipe(name, seed=1)
    assert len(recipe.parts) == 1 and recipe.seed == 1 and recipe.name == experiment.ROWS[name][0]
    assert (recipe.quantize.train is None) == ("PTQ" in name)


def test_rows_and_seeds_are_told_apart() -> None:
    keys = {experiment.key(name, seed) for name in experiment.ROWS for seed in range(experiment.SEEDS)}
    assert len(keys) == len(experiment.ROWS) * experiment.SEEDS


def test_the_rows_of_a_network_and_seed_have_one_float_network() -> None:
    hashes = {
        experiment.make_recipe(name, 0).training_hash()
        for name, (network, _) in experiment.ROWS.items()
        if network == experiment.ABLATED
    }
    assert len(hashes) == 1


def test_a_drop_is_that_of_the_same_seed() -> None:
    scores = {
        ("PTQ", 0): (0.80, 0.79),
        ("PTQ", 1): (0.82, 0.80),
        ("QAT", 0): (0.80, 0.80),
        ("QAT", 1): (0.82, 0.83),
    }
    done = {
        experiment.key(f"{FEW}, {kind}", seed): {"float": real, "top1": int8}
        for (kind, seed), (real, int8) in scores.items()
    }
    line = next(line for line in experiment.tables(done) if FEW in line)
    assert line == (
        f"| {FEW} | 64 | 2 | 81.00 | 1.41 | 79.50 | +1.50 (+1.00 to +2.00) | 81.50 | -0.50 (-1.00 to +0.00) |"
    )
    assert not any("DenseNet121" in line for line in experiment.tables(done))
    changed = "QAT, ranges: minmax"
    run = {"float": 0.80, "top1": 0.79, "distance": 0.25}
    lines = experiment.tables({experiment.key(f"{experiment.ABLATED}, {changed}", 0): run})
    assert f"| {changed} | 1 | 0.25000 | 79.00 | +1.00 (+1.00 to +1.00) |" in lines


def test_data_that_is_not_there_is_one_line_and_no_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, seed: int) -> dict[str, float]:
        raise MissingError("no such folder", where="/nowhere")

    chosen = argparse.Namespace(minutes=1.0, only=None, results=tmp_path / "results.jsonl")
    with pytest.raises(SystemExit) as stopped:
        experiments.finish(chosen, ["row"], 1, lambda name, seed: name, run)
    assert stopped.value.code == MissingError.exit_code and not list(tmp_path.iterdir())
    assert capsys.readouterr().err == "row, seed 0: no such folder (/nowhere)\n"
