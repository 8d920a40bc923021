"""A search for better values of recipe keys: trials of the float training, judged by the validation images alone."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgecls.cluster import Cluster
from edgecls.console import Console
from edgecls.data.sources import Dataset
from edgecls.errors import UsageError
from edgecls.recipe import Recipe
from edgecls.run import Run
from edgecls.search import study as studies
from edgecls.search.best import Origin, write_best
from edgecls.search.space import Space, Values, check_space, start_values
from edgecls.stamps import Fingerprint, fingerprint
from edgecls.text import plural
from edgecls.workflow.checking import (
    SEEN_IN_SPLITS,
    check,
    networks,
    published_weights,
    trained_on,
    weights_input,
)
from edgecls.workflow.common import download_weights
from edgecls.workflow.trials import Worker, alone

TRIALS = 20
"""Trials of a Bayesian search, unless another number is asked for."""

# What trials depend on by their content, or not at all: a study goes on where files are in other places.
_ELSEWHERE: dict[str, Any] = {
    **dict.fromkeys(("name", "quantize", "export", "bench"), True),
    "data": SEEN_IN_SPLITS,
    "model": {"weights"},
    "teacher": {"weights": True, "others": {"__all__": {"weights"}}},
    "distill": {"store"},
}


def tune(
    recipe: Recipe,
    console: Console,
    space: Space,
    origin: Origin,
    *,
    search: str = "bayes",
    trials: int | None = None,
    storage: str | None = None,
    name: str = "main",
    pruner: str = "median",
    root: str | Path = "runs",
) -> dict[str, Any]:
    """Train the recipe with different values of its keys; each training is scored on the validation images.

    All processes that are started with one storage, recipe and space work on one study. What a killed process was
    training goes on in the next one that is free. The test images are never looked at.

    Args:
        recipe: What to train; its own values are tried first in a Bayesian search.
        console: Is told what happens.
        space: The keys and their values.
        origin: Where the recipe comes from, for the best one's ``base:``.
        search: ``bayes`` or ``grid``.
        trials: How many the study is to have, all processes together; None: ``TRIALS``, or the whole grid.
        storage: URL of Optuna's storage; None: an SQLite file in ``<root>/<recipe's name>/tune/``.
        name: Of the study, and of its folder there.
        pruner: Ends trials early: ``median``, ``hyperband`` or ``none``.
        root: Folder of all runs.

    Returns:
        The content of schema ``edgecls.tune/1``; ``trials`` are those of all processes.

    Raises:
        UsageError: A key or value that the recipe refuses, no labeled validation images, a study of another recipe.
        MissingError: The storage does not answer.
        EdgeclsError: See its subclasses; finished trials are kept.
    """
    known: dict[str, Dataset] = {}
    data = _check(recipe, space, console, name, known)
    folder = Path(root).absolute() / recipe.name / "tune" / name
    folder.mkdir(parents=True, exist_ok=True)
    url = storage or f"sqlite:///{folder.parent / 'optuna.db'}"
    epochs = sum(part.recipe.train.epochs for part in recipe.parts)
    with alone(folder.parent / ".lock"):  # two processes would make an SQLite file's tables at once
        study = studies.open_study(
            url,
            name,
            _inputs(recipe, data),
            space,
            search=search,
            seed=recipe.seed,
            start=start_values(recipe, space),
            pruner=studies.make_pruner(pruner, epochs),
        )
    whole = len(space.grid) if search == "grid" else None
    goal = min(trials or whole or TRIALS, whole or 10**9)
    console.log(f"study {name}: {folder}")
    worker = Worker(recipe, space, console, study, folder, Path(root), known, goal)
    with studies.answering(url):
        try:
            worker.work()
        finally:
            rows = studies.trial_rows(study, space)
            result = {
                "schema": "edgecls.tune/1",
                "recipe": recipe.name,
                "study": name,
                "search": search,
                "pruner": pruner,
                "storage": studies.shown(url),
                "folder": str(folder),
                "score": "balanced accuracy on the validation images, of the selected weights",
                "space": space.describe(),
                "trials": rows,
                "importance": studies.importance(study),
            }
            result |= _written(result, folder, origin)
    return result


def _check(
    recipe: Recipe, space: Space, console: Console, name: str, known: dict[str, Dataset]
) -> dict[str, Dataset]:
    """Refuse what could not be searched, before anything is written; gives the images of each stage."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):
        fix = "use letters, digits, '_', '.' and '-', beginning with a letter or digit"
        raise UsageError(f"{name!r} is no name for a study", where="--study", fix=fix)
    if Cluster.from_environment().count > 1:
        fix = "unset TF_CONFIG, and start the same command on each computer with one --storage"
        raise UsageError("a trial is trained by one process", where="TF_CONFIG", fix=fix)
    variants = check_space(recipe, space)
    data = check(recipe, console, known)
    if not (data[recipe.parts[-1].stage].val.labels >= 0).any():
        fix = "raise data.val_fraction, or name labeled ones with data.val_path"
        raise UsageError("there are no labeled validation images to compare trials by", fix=fix)
    for variant in variants:
        check(variant, Console(quiet=True), known)
    sources = {pair for each in (recipe, *variants) for pair in published_weights(each)}
    for weights, network in sorted(sources):
        download_weights(weights, network, console)
    return data


def _inputs(recipe: Recipe, data: Mapping[str, Dataset]) -> Fingerprint:
    """All that the trials of a study depend on besides its space."""
    weights = {str(i): weights_input(network) for i, network in enumerate(networks(recipe))}
    return fingerprint(
        {
            part.stage: {
                "recipe": part.recipe.model_dump(exclude=_ELSEWHERE),
                "images": trained_on(part.recipe, data[part.stage]),
            }
            for part in recipe.parts
        }
        | {"weights": weights}
    )


def _written(result: Mapping[str, Any], folder: Path, origin: Origin) -> dict[str, Any]:
    """Write the page and the best recipe. Gives what is known of the best trial and the paths."""
    from edgecls.report.tune import write_tuning

    best = studies.best_of(result["trials"])
    path = folder / "best.yaml"
    if best:
        _write_best_recipe(path, best, result, folder, origin)
    found = {"best": best, "best_recipe": str(path) if best else None}
    page = write_tuning({**result, **found}, folder / "tune.html")
    return {**found, "report": str(page)}


def _write_best_recipe(
    path: Path, best: Mapping[str, Any], result: Mapping[str, Any], folder: Path, origin: Origin
) -> None:
    rows = result["trials"]
    first = next((row["score"] for row in rows if row["number"] == 0), None)
    of_first = f"; trial 0 had {first:.4f}" if first is not None and best["number"] else ""
    comments = [
        f"edgecls train {os.path.relpath(path)}",
        "",
        f"Trial {best['number']} of study {result['study']}: balanced accuracy {best['score']:.4f} on the validation"
        f" images{of_first}.",
        f"{plural(len(rows), 'trial')} of {', '.join(result['space'])}. No trial has seen the test images;"
        " the best of many is also the luckiest, so expect a little less on those.",
    ]
    teachers = _teachers(best, path.parent)
    if teachers:
        comments.append(
            "Its teachers are those that all trials have learned from; they are not trained again."
        )
    write_best(path, origin, best["values"], comments, teachers)


def _teachers(best: Mapping[str, Any], folder: Path) -> Values:
    """Keys that name the files of the trained teachers, which are here unless another computer has done the trial."""
    run = Run(best.get("run", ""))
    files = {stage: Path(path) for stage, path in best.get("teachers", {}).items()}
    if not run.file("recipe.yaml").exists() or not all(file.exists() for file in files.values()):
        return {}
    found = [
        {"weights": os.path.relpath(files[stage].resolve(), folder.resolve()), "train": None}
        if teacher.train
        else {}
        for stage, teacher in run.recipe.teachers.items()
    ]
    if not any(found):
        return {}
    others = [
        teacher.model_dump() | known
        for teacher, known in zip(list(run.recipe.teachers.values())[1:], found[1:], strict=True)
    ]
    values: Values = {f"teacher.{key}": value for key, value in found[0].items()}
    return values | ({"teacher.others": others} if others else {})
