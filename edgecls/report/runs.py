"""The list of runs: what each one has reached, and its main figures."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgecls.errors import EdgeclsError
from edgecls.files import TEMPORARY, read_jsonl
from edgecls.report.facts import Facts, moment, stage_seconds
from edgecls.report.figures import median
from edgecls.report.values import at, number
from edgecls.run import Run

_EPOCHS = {  # stage, of phases the part before the dot -> the key of the recipe that has its number of epochs
    "teacher": ("teacher", "train", "epochs"),
    "student": ("train", "epochs"),
    "qat": ("quantize", "train", "epochs"),
}


def list_runs(root: str | Path = "runs") -> dict[str, Any]:
    """Every run under a folder, the newest first.

    Folders that are no runs are passed over. A damaged file of a run hides the figures that it would have held.

    Args:
        root: Folder of all runs.

    Returns:
        ``{"schema": "edgecls.runs/1", "root", "runs"}``. Each run is a mapping with ``path``, ``name`` (as commands
        take it), ``latest``, ``state``, ``stage``, ``epoch``, ``epochs``, ``balanced_accuracy`` (``{"float", "int8"}``,
        each ``{"value", "ci95"}`` or None), ``int8_ms``, ``int8_threads``, ``device``, ``seconds`` (of its finished
        stages) and ``bytes``. What is not known is None.

        ``state`` is "running" (a process has locked it), "interrupted", "empty" (nothing is done yet), "trained",
        "quantized" or "benchmarked". Of a running or interrupted one, ``stage`` is what it was at, and ``epoch``
        of ``epochs`` how many epochs of that were complete.

    Example:
        >>> [(run["name"], run["state"]) for run in list_runs("runs")["runs"]]   # doctest: +SKIP
        [('mv3_ssld/20260102-030405', 'benchmarked')]
    """
    root = Path(root)
    latest = _latest(root)
    runs = [_entry(folder, root, folder.resolve() == latest) for folder in _folders(root)]
    if latest and all(not run["latest"] for run in runs):  # made with --run, elsewhere
        runs.insert(0, _entry(latest, root, True))
    return {"schema": "edgecls.runs/1", "root": str(root), "runs": runs}


def _folders(root: Path) -> Iterator[Path]:
    """Run folders, the newest first; their names are times."""
    found = [
        recipe.parent
        for recipe in root.glob("*/*/recipe.yaml")
        if not recipe.parent.is_symlink() and not recipe.parent.parent.is_symlink()
    ]
    return iter(
        sorted((p for p in found if TEMPORARY not in p.name), key=lambda p: (p.name, p), reverse=True)
    )


def _latest(root: Path) -> Path | None:
    with suppress(EdgeclsError, OSError):
        return Run.find(None, root).path.resolve()
    return None


def _entry(folder: Path, root: Path, latest: bool) -> dict[str, Any]:
    facts = Facts(Run(folder))
    state, stage = _state(facts)
    epoch = [number(row.get("epoch")) for row in facts.metrics if row.get("stage") == stage]
    int8_ms, threads = median(facts, "int8") or (None, None)
    return {
        "path": str(folder),
        "name": folder.relative_to(root).as_posix() if folder.is_relative_to(root) else str(folder),
        "latest": latest,
        "state": state,
        "stage": stage,
        "epoch": int(epoch[-1]) + 1 if epoch and epoch[-1] is not None else None,
        "epochs": _epochs(facts, stage) if stage else None,
        "balanced_accuracy": {model: _accuracy(facts, model) for model in ("float", "int8")},
        "int8_ms": int8_ms,
        "int8_threads": threads,
        "device": at(facts.bench, "device", "name") if int8_ms is not None else None,
        "seconds": round(sum(seconds for _, seconds in stage_seconds(facts)), 2),
        "bytes": _bytes(folder),
    }


def _state(facts: Facts) -> tuple[str, str | None]:
    """What a run has reached, and the stage that it works at or was stopped in."""
    stage = _unfinished(facts)
    if _locked(facts.run.path):
        return "running", stage
    trained = facts.trainings[-1] in facts.stamps
    if stage or (facts.stamps and not trained):
        return "interrupted", stage
    if facts.results():
        return "benchmarked", None
    if "qat" in facts.stamps:
        return "quantized", None
    return ("trained" if trained else "empty"), None


def _unfinished(facts: Facts) -> str | None:
    """The stage that was begun last, if it has not been stamped since."""
    begun: list[dict[str, Any]] = []
    with suppress(OSError):
        begun = [row for row in read_jsonl(facts.run.file("log.jsonl")) if row.get("event") == "stage"]
    if not begun:
        return None
    stage, time = str(begun[-1].get("stage")), begun[-1].get("time")
    stamp = facts.stamps.get(stage)
    return None if stamp and moment(stamp.get("finished")) >= moment(time) else stage


def _locked(folder: Path) -> bool:
    """Whether a process works in the run. The lock is held for an instant only, and shared."""
    try:
        descriptor = os.open(folder / ".lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)
    return False


def _accuracy(facts: Facts, model: str) -> dict[str, Any] | None:
    value, interval = facts.balanced(model), facts.balanced_interval(model)
    return None if value is None else {"value": value, "ci95": interval and list(interval)}


def _epochs(facts: Facts, stage: str) -> int | None:
    """How many epochs a stage has; None if it trains nothing."""
    key = _EPOCHS.get(stage.partition(".")[0])
    return _whole(at(facts.recipe_of(stage), *key)) if key else None


def _whole(value: Any) -> int | None:
    value = number(value)
    return None if value is None else int(value)


def _bytes(folder: Path) -> int:
    """Bytes of all files; links are not followed."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(place) / name).lstat().st_size
    return total
