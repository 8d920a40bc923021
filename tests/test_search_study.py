"""Studies: what is drawn, many processes on one storage, what a dead process leaves, storages that are not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

import edgecls.search
from edgecls.errors import EdgeclsError, MissingError, UsageError
from edgecls.search import study as studies
from edgecls.search.samplers import draw, ordinal
from edgecls.search.space import Space, read_space

SPACE = ["train.optimizer.lr={low: 0.001, high: 0.1, log: true}", "augment.mixup=[null, {alpha: 0.2}]"]
GRID = ["train.epochs=[1, 2, 3]", "train.label_smoothing=[0, 0.1]"]


def open_study(folder: Path, space: Space, search: str = "bayes", **options: Any) -> optuna.Study:
    given = {"name": "main", "inputs": {"recipe": 1}, "seed": 0, "start": {}, "pruner": "none"} | options
    pruner = studies.make_pruner(given.pop("pruner"), epochs=5)
    return studies.open_study(
        f"sqlite:///{folder / 'optuna.db'}", space=space, search=search, pruner=pruner, **given
    )


def run(study: optuna.Study, space: Space, trials: int, stop_at: int | None = None) -> None:
    """Trials whose score is the learning rate; one of them may be stopped."""

    def objective(trial: optuna.Trial) -> float:
        studies.claim(trial)
        values = draw(trial, space)
        if trial.number == stop_at:
            raise KeyboardInterrupt
        return float(next(iter(values.values())))

    study.optimize(objective, n_trials=trials)


def values_of(study: optuna.Study, space: Space) -> list[dict[str, Any]]:
    return [row["values"] for row in studies.trial_rows(study, space)]


def test_what_is_drawn_depends_on_seed_name_and_number_only(tmp_path: Path) -> None:
    space = read_space(SPACE)
    start = {"train.optimizer.lr": 0.05, "augment.mixup": None}
    found = {}
    for place, options in {"a": {}, "b": {}, "c": {"seed": 1}, "d": {"name": "other"}}.items():
        (tmp_path / place).mkdir()
        study = open_study(tmp_path / place, space, start=start, **options)
        if place != "b":
            run(study, space, 13 if place == "a" else 2)  # ten of them are before the sampler learns
        else:  # the same in three processes' lives, one of them interrupted
            run(study, space, 4)
            with pytest.raises(KeyboardInterrupt):
                run(open_study(tmp_path / place, space, start=start), space, 8, stop_at=11)
            study = open_study(tmp_path / place, space, start=start)
            studies.try_again(study, study.trials[11])
            run(study, space, 2)
        found[place] = values_of(study, space)
    assert found["a"][0] == start and found["a"] == found["b"]
    assert len(found["b"]) == 13 and found["a"][1] != found["a"][2]
    assert found["c"][1] != found["a"][1] != found["d"][1]
    assert {values["augment.mixup"] is None for values in found["a"]} == {True, False}


def test_the_search_finds_the_better_end(tmp_path: Path) -> None:
    space = read_space(
        ["train.optimizer.lr={low: 0.001, high: 0.1, log: true}", "train.label_smoothing=[0, 0.1]"]
    )
    study = open_study(tmp_path, space)
    run(study, space, 24)
    rows = studies.trial_rows(study, space)
    best = studies.best_of(rows)
    assert best is not None and best["score"] > 0.08
    late = [row["score"] for row in rows[12:]]
    assert sum(late) / len(late) > 0.03  # a blind search has 0.0215 on average
    share = studies.importance(study)
    assert share["train.optimizer.lr"] > 0.8 and sum(share.values()) == pytest.approx(1)


def test_too_few_trials_have_no_importance(tmp_path: Path) -> None:
    space = read_space(SPACE)
    study = open_study(tmp_path, space)
    assert studies.importance(study) == {}
    run(study, space, 4)
    assert studies.importance(study) == {}


WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_search_study import GRID, open_study, run, studies
from edgecls.search.space import read_space
space = read_space(GRID)
study = open_study(Path({folder!r}), space, "grid")
{work}
"""


def worker(folder: Path, work: str) -> subprocess.Popen[str]:
    code = WORKER.format(tests=str(Path(__file__).parent), folder=str(folder), work=textwrap.dedent(work))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_a_killed_process_leaves_its_trial_to_the_others(tmp_path: Path) -> None:
    """Two processes on one grid; one is killed with ``kill -9`` in its trial."""
    space = read_space(GRID)
    study = open_study(tmp_path, space, "grid")
    killed = worker(
        tmp_path,
        """
        import time
        from edgecls.search.samplers import draw
        def objective(trial):
            studies.claim(trial)
            draw(trial, space)
            print(trial.number, flush=True)
            time.sleep(600)
        study.optimize(objective, n_trials=1)
        """,
    )
    assert killed.stdout is not None and killed.stdout.readline() == "0\n"
    other = worker(tmp_path, "while studies.begun(study) < 6: run(study, space, 1)")
    while studies.begun(study) < 3:
        run(study, space, 1)
        assert studies.revive(study) == []  # it lives
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert other.wait() == 0
    assert studies.revive(study) == [0]
    assert studies.revive(study) == []
    while studies.begun(study) < 6:
        run(study, space, 1)
    assert [row["number"] for row in studies.trial_rows(study, space)] == list(range(6))
    assert values_of(study, space) == space.grid
    assert ordinal(study, study.trials[-1]) == 0 and study.trials[0].state == optuna.trial.TrialState.FAIL


def test_a_silent_process_on_another_computer_is_dead_after_a_while(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(studies, "_SILENT_SECONDS", 1)
    space = read_space(GRID)
    study = open_study(tmp_path, space, "grid")

    def objective(trial: optuna.Trial) -> float:
        draw(trial, space)
        trial.set_user_attr("owner", {"host": "elsewhere", "pid": os.getpid(), "started": "0"})
        return 0.0

    trial = study.ask()
    objective(trial)
    study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
    assert studies.revive(study) == []
    time.sleep(2.5)
    run(study, space, 1)  # notices it, and does it
    rows = studies.trial_rows(study, space)
    assert [(row["number"], row["state"]) for row in rows] == [(0, "complete")]


def test_a_trial_that_is_behind_is_pruned(tmp_path: Path) -> None:
    space = read_space(GRID)
    study = open_study(tmp_path, space, "grid", pruner="median")

    def objective(trial: optuna.Trial) -> float:
        draw(trial, space)
        score = 0.2 if trial.number == 5 else 0.5 + 0.1 * trial.number
        for epoch in range(5):
            trial.report(score, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return score

    study.optimize(objective, n_trials=6)
    rows = studies.trial_rows(study, space)
    assert [row["state"] for row in rows] == ["complete"] * 5 + ["pruned"]
    assert rows[5]["epochs"] == 2 and rows[5]["score"] is None  # the first fifth of the epochs is not judged
    best = studies.best_of(rows)
    assert best is not None and best["number"] == 4


def test_hyperband_and_none(tmp_path: Path) -> None:
    assert isinstance(studies.make_pruner("hyperband", 9), optuna.pruners.HyperbandPruner)
    assert isinstance(studies.make_pruner("none", 9), optuna.pruners.NopPruner)
    space = read_space(GRID)
    study = open_study(tmp_path, space, pruner="hyperband")  # shows the sampler one bracket at a time
    run(study, space, 3)
    assert len(studies.trial_rows(study, space)) == 3


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("sqlite:////nowhere/at/all.db", MissingError, "unable to open database file"),
        ("postgresql+psycopg2://me:secret@127.0.0.1:1/x", MissingError, "'psycopg2' is not installed"),
        ("tune.db", UsageError, "not the URL of a storage"),
        ("foo://x", UsageError, "not the URL of a storage"),
    ],
)
def test_a_storage_that_is_not_there(url: str, kind: type[EdgeclsError], message: str) -> None:
    space = read_space(GRID)
    with pytest.raises(kind) as error:
        studies.open_study(url, "main", {}, space, search="grid", seed=0, start={}, pruner=None)
    assert message in str(error.value) and "secret" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: open_study(folder, read_space(GRID), "grid", inputs={"recipe": 2}), "recipe 1 -> 2"),
        (lambda folder: open_study(folder, read_space(GRID), "bayes"), 'search "grid" -> "bayes"'),
        (
            lambda folder: open_study(folder, read_space([*GRID, "train.epochs=[1, 2]"]), "grid"),
            "space.train.epochs [1, 2, 3] -> [1, 2]",
        ),
    ],
)
def test_a_study_of_another_recipe_or_space(
    tmp_path: Path, change: Callable[[Path], optuna.Study], message: str
) -> None:
    open_study(tmp_path, read_space(GRID), "grid")
    with pytest.raises(UsageError) as error:
        change(tmp_path)
    assert message in str(error.value) and "--study" in error.value.fix


def test_without_optuna_the_line_to_type_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingError, match=r"pip install '\.\[tune\]'"):
        edgecls.search.require_optuna()
