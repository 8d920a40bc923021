"""The table of what int8 costs networks with published weights: what a row is, and that photographs are counted once."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import numpy as np
import pytest

from edgecls.quantize.twin import calibrated_twin

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
import experiment_ptq as experiment


@pytest.mark.parametrize("name", experiment.ROWS)
def test_a_row_is_arguments_of_the_calibration(name: str) -> None:
    _, how = experiment.ROWS[name]
    assert {*how} - {"epochs"} <= inspect.signature(calibrated_twin).parameters.keys()


def test_rows_and_halves_are_told_apart() -> None:
    keys = {experiment.key(name, half) for name in experiment.ROWS for half in range(experiment.HALVES)}
    assert len(keys) == len(experiment.ROWS) * experiment.HALVES


def test_a_row_counts_each_photograph_once() -> None:
    name = next(iter(experiment.ROWS))
    halves = [
        {
            "photos": 3,
            "signal": 90.0,
            "noise": 0.5,
            "divergence": 0.3,
            "same": 1.0,
            "float": 2 / 3,
            "int8": 2 / 3,
        },
        {
            "photos": 1,
            "signal": 10.0,
            "noise": 0.5,
            "divergence": 0.1,
            "same": 0.0,
            "float": 1.0,
            "int8": 0.0,
        },
    ]
    done = {experiment.key(name, half): figures for half, figures in enumerate(halves)}
    lines = list(experiment.table(done))
    assert lines[2].endswith("| 4 | 20.00 | 0.1000 | 75.0 | 75.0 | 50.0 |")
    assert len([line for line in lines if line.startswith("| Eff")]) == 1, "others have no runs"


def test_figures_of_a_half() -> None:
    laboratory = experiment.Laboratory(Path("nowhere"), Path("nowhere"))
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], np.float32))
    other = np.log(np.array([[0.25, 0.5, 0.25], [0.1, 0.8, 0.1]], np.float32))
    figures = laboratory.compared(logits, other, [])
    assert figures["same"] == 0.5 and figures["divergence"] == pytest.approx(0.25 * np.log(2), rel=1e-5)
    assert figures["noise"] == pytest.approx(2 * np.log(2) ** 2, rel=1e-5) and "int8" not in figures
