"""The trials of a search: each is a training of the float network in a run folder of its own."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna

from edgecls.console import Console
from edgecls.data.sources import Dataset
from edgecls.errors import EdgeclsError
from edgecls.files import atomic, hash_json, remove, write_json
from edgecls.recipe import Part, Recipe
from edgecls.report.tune import value_text
from edgecls.run import Run
from edgecls.search import study as studies
from edgecls.search.samplers import draw, ordinal
from edgecls.search.space import Space, Values, applied
from edgecls.stamps import fingerprint
from edgecls.text import plural
from edgecls.train.callbacks import Callback
from edgecls.workflow.checking import check
from edgecls.workflow.stages import (
    make_part,
    make_teacher,
    on_devices,
    part_inputs,
    part_outputs,
    teacher_file,
    teacher_inputs,
)
from edgecls.workflow.together import run_stage

SCORE = "val_balanced_accuracy"


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other process of this computer is in a block with the same file."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Pruning(Callback):
    """Tells a study how good a trial is after each epoch, and ends it where it is behind the others."""

    def __init__(self, trial: optuna.Trial, before: int) -> None:
        self._trial, self._before = trial, before  # epochs of the phases before
        self._told: set[int] = set()

    def on_epoch(self, epoch: int, values: dict[str, float]) -> None:
        if SCORE in values:
            self.tell(epoch, values[SCORE])
            if self._trial.should_prune():
                raise optuna.TrialPruned(f"pruned after {plural(self._before + epoch + 1, 'epoch')}")

    def tell(self, epoch: int, score: float) -> None:
        """Report an epoch, also one that was trained before a kill."""
        step = self._before + epoch
        if step not in self._told:
            self._told.add(step)
            self._trial.report(score, step)


@dataclass
class Worker:
    """One of the processes that train a study's trials.

    Attributes:
        recipe: What is trained, but for the values of the trials.
        space: The keys and their values.
        console: Is told what happens.
        study: Has the trials of all processes.
        folder: Of the study; gets a run for each trial, and the teachers.
        root: Folder of all runs; a teacher may be taken from one of them.
        known: See ``checking.check``.
        goal: Trials that the study is to have.
    """

    recipe: Recipe
    space: Space
    console: Console
    study: optuna.Study
    folder: Path
    root: Path
    known: dict[str, Dataset]
    goal: int
    _trial: optuna.Trial | None = None
    _teachers: dict[str, Path] = field(default_factory=dict)

    def work(self) -> None:
        """Train trials until the study has enough. Several processes may begin one too many."""
        while True:
            for number in studies.revive(self.study):
                self.console.log(f"trial {number}: its process is dead; it goes on")
            if studies.begun(self.study) >= self.goal:
                return
            try:
                self.study.optimize(self._objective, n_trials=1)
            except BaseException:
                if self._trial is not None:  # whatever stopped it, the next process goes on with it
                    studies.try_again(self.study, self.study.trials[self._trial.number])
                raise
            self._say_how_it_ended()

    def _objective(self, trial: optuna.Trial) -> float:
        self._trial = trial
        studies.claim(trial)
        values = draw(trial, self.space)
        number = ordinal(self.study, trial)
        shown = ", ".join(f"{key} {value_text(value)}" for key, value in values.items())
        self.console.log(f"trial {number}, {studies.begun(self.study)} of {self.goal}: {shown}")
        if other := studies.twin(self.study, trial):
            return self._taken_over(trial, other)
        recipe = applied(self.recipe, values)
        run = self._begin(recipe, "trials", f"{number:04d}")
        started = time.monotonic()
        trial.set_user_attr("run", str(run.path))
        try:
            score = self._train(trial, recipe, values, run)
            self._tidy(run)
            return score
        except optuna.TrialPruned as pruned:
            run.log("pruned", why=str(pruned))
            self._tidy(run)
            raise
        except EdgeclsError as error:
            if type(error) is not EdgeclsError:  # of the recipe or of this computer, not of these values
                raise
            trial.set_user_attr(studies.ERROR, str(error))
            run.log("failed", why=str(error))
            self._tidy(run)
            raise optuna.TrialPruned(str(error)) from None
        finally:
            trial.set_user_attr("seconds", round(time.monotonic() - started, 1))
            run.unlock()
            _forget_networks()

    def _taken_over(self, trial: optuna.Trial, other: optuna.trial.FrozenTrial) -> float:
        """The end of a trial whose values were tried before."""
        self.console.log(
            f"trial {ordinal(self.study, trial)}: the same values as trial {ordinal(self.study, other)}"
        )
        for key in ("run", "teachers", studies.ERROR):
            if key in other.user_attrs:
                trial.set_user_attr(key, other.user_attrs[key])
        if other.state != optuna.trial.TrialState.COMPLETE or other.value is None:
            raise optuna.TrialPruned
        return other.value

    def _begin(self, recipe: Recipe, *place: str) -> Run:
        """A run folder of the study. It is never the newest run, which other commands take by themselves."""
        folder = self.folder.joinpath(*place)
        # What is there may be of a study that was deleted.
        started = Run.start(recipe, directory=folder, fresh=not Run(folder).is_of(recipe))
        return Run(started.path)

    def _train(self, trial: optuna.Trial, recipe: Recipe, values: Values, run: Run) -> float:
        """The score of the recipe's float network."""
        data = _without_test(check(recipe, Console(quiet=True), self.known))
        parts = recipe.parts
        write_json(run.file("split.json"), data[parts[-1].stage].describe())
        teachers = {stage: self._teacher(stage, values) for stage in recipe.teachers}
        for stage, path in teachers.items():
            _link(path, run.file(teacher_file(stage)))
        trial.set_user_attr("teachers", {stage: str(path) for stage, path in teachers.items()})
        before = 0
        for part in parts:
            images = data[part.stage]
            inputs = part_inputs(part, images, run)
            pruning = _Pruning(trial, before)
            for row in _epochs(run, part):
                pruning.tell(row["epoch"], row[SCORE])
            work = partial(on_devices, make_part, part, run, self.console, images, inputs, [pruning])
            run_stage(run, self.console, part.stage, inputs, part_outputs(part), work)
            before += part.recipe.train.epochs
        return _score(run, parts[-1])

    def _teacher(self, stage: str, values: Values) -> Path:
        """The file of a teacher that a trial learns from; it is the same for all, unless its own keys are searched.

        The first process that needs it trains it with the recipe as it is, others wait for it. Where a run of the recipe
        has one from the same inputs, that is taken.
        """
        recipe = applied(self.recipe, _of_teacher(values))
        data = _without_test(check(recipe, Console(quiet=True), self.known))["teacher"]
        inputs = teacher_inputs(stage, recipe, data)
        key = hash_json(fingerprint(inputs))[:12]
        if key not in self._teachers:
            (self.folder / "teachers").mkdir(exist_ok=True)
            with alone(self.folder / "teachers" / f".{key}.lock"):
                run = self._begin(recipe, "teachers", key)
                others = Run(run.path, self.root).others()
                work = partial(on_devices, make_teacher, stage, recipe, run, self.console, data, inputs)
                with run.lock():
                    run_stage(run, self.console, stage, inputs, [teacher_file(stage)], work, others)
                    remove(run.file("checkpoints"))
            self._teachers[key] = run.file(teacher_file(stage))
        return self._teachers[key]

    @staticmethod
    def _tidy(run: Run) -> None:
        """Remove what only the training needed."""
        for name in ("checkpoints", "views", *map(teacher_file, run.recipe.teachers)):
            remove(run.file(name))

    def _say_how_it_ended(self) -> None:
        rows = studies.trial_rows(self.study, self.space)
        number = self._trial and ordinal(self.study, self._trial)
        row = next(row for row in rows if row["number"] == number)
        best = studies.best_of(rows)
        than = f"; best {best['score']:.4f}, trial {best['number']}" if best else ""
        how = f"{row['score']:.4f}" if row["score"] is not None else row.get("error") or row["state"]
        self.console.say(f"trial {number}: {how}{than}")
        self._trial = None


def _of_teacher(values: Values) -> Values:
    return {key: value for key, value in values.items() if key.partition(".")[0] == "teacher"}


def _without_test(data: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """The images without the test split, which a trial must not see."""
    return {stage: replace(each, test=each.test.subset(slice(0))) for stage, each in data.items()}


def _epochs(run: Run, part: Part) -> list[dict[str, Any]]:
    """Figures of the epochs that a part was trained for, where they were measured on validation images."""
    return [row for row in run.metrics() if row["stage"] == part.stage and SCORE in row]


def _score(run: Run, part: Part) -> float:
    """Balanced accuracy of the weights that the last part has selected."""
    figures = run.stamps()[part.stage]["figures"]
    return figures["best_value"] if figures["selected"] == "best" else _epochs(run, part)[-1][SCORE]


def _link(source: Path, target: Path) -> None:
    """The file under a second name; a copy where the file system has no links."""
    remove(target)
    with atomic(target) as part:
        try:
            os.link(source, part)
        except OSError:
            shutil.copyfile(source, part)


def _forget_networks() -> None:
    """Let go of a trial's graphs and images; a search of many trials would fill the memory with them.

    TensorFlow's default graph keeps every Python function that a ``tf.data`` pipeline has called, and with it the images.
    """
    import keras
    import tensorflow as tf

    getattr(tf.compat.v1.get_default_graph(), "_py_funcs_used_in_graph", []).clear()
    keras.backend.clear_session()
    gc.collect()
