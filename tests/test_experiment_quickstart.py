"""The search for the quick start's recipe compares what it says it compares, on photographs that are not for testing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
import experiment_quickstart as experiment


@pytest.mark.parametrize("name", experiment.ROWS)
def test_every_training_of_a_row_learns_from_views(name: str) -> None:
    recipe = experiment.make_recipe(name, seed=1)
    assert len(recipe.parts) == (2 if "then" in name else 1) and recipe.seed == 1
    for part in recipe.parts:
        assert part.recipe.distill is not None and part.recipe.distill.views


def test_rows_and_seeds_are_told_apart() -> None:
    keys = {experiment.key(name, seed) for name in experiment.ROWS for seed in range(experiment.SEEDS)}
    assert len(keys) == len(experiment.ROWS) * experiment.SEEDS


def test_the_table_compares_runs_of_one_seed() -> None:
    name = "crops, no labels, 60 epochs"
    scores = {(experiment.BEFORE, 0): 0.70, (experiment.BEFORE, 1): 0.72, (name, 1): 0.75}
    done = {
        experiment.key(*run): {
            "balanced_accuracy": score,
            "seconds": 90.0,
            "train_accuracy": 0.8,
            "teacher": 0.81,
        }
        for run, score in scores.items()
    }
    before, other = experiment.table(done).splitlines()[2:]
    assert before.startswith("| as before | 2 | 71.0 | 1.4 |  | 90 | 80.0 | 81.0 |")
    assert other == "| crops, no labels, 60 epochs | 1 | 75.0 |  | +3.0 (+3.0 to +3.0) | 90 | 80.0 | 81.0 |"
