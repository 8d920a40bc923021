"""The trials of a search, in a storage that many processes share: opening it, taking over what a dead process left."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from edgecls.errors import MissingError, UsageError
from edgecls.search.samplers import RETRY, Bayes, Grid, decoded, ordinal
from edgecls.search.space import Space, Values
from edgecls.stamps import Fingerprint, changes
from edgecls.text import first_line

SEARCHES = ("bayes", "grid")
PRUNERS = ("median", "hyperband", "none")

_BEAT_SECONDS = 60
_SILENT_SECONDS = 600
"""After this long without a sign a process on another computer counts as dead; one on this computer is looked up."""
_LOCK_SECONDS = 60  # that SQLite waits for another process
_FIRST_TRIALS = 4  # complete ones, before the median says anything
_FEWEST_JUDGED = 5  # complete ones, before it is said which key matters
_INPUTS, _OWNER, ERROR = "inputs", "owner", "error"


def open_study(
    url: str,
    name: str,
    inputs: Fingerprint,
    space: Space,
    *,
    search: str,
    seed: int,
    start: Values,
    pruner: Any,
) -> optuna.Study:
    """Join a study, or begin it if the storage has none of this name.

    Args:
        url: Of the storage, as SQLAlchemy writes it: ``sqlite:///FILE``, ``postgresql://USER:PASSWORD@HOST/NAME``.
        name: Of the study in the storage.
        inputs: All that its trials depend on besides the space.
        space: What is searched.
        search: One of ``SEARCHES``.
        seed: Of the recipe; together with the name and a trial's number it decides what is drawn.
        start: Values of the first trial of a Bayesian search.
        pruner: See ``make_pruner``.

    Raises:
        UsageError: ``url`` is none, or the study was begun with other inputs or another space.
        MissingError: The storage does not answer, or the package that talks to it is not installed.
    """
    # The trials' states and what they mean are ours to tell.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with answering(url), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats
        storage = _storage(url)
        study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", pruner=pruner, load_if_exists=True
        )
        now = {**inputs, "search": search} | {f"space.{k}": v for k, v in space.describe().items()}
        before = study.user_attrs.get(_INPUTS)
        if before is None:
            study.set_user_attr(_INPUTS, now)
    if before is not None and (changed := changes(before, now)):
        fix = "name another study with --study"
        raise UsageError(f"study {name!r} was begun otherwise: {changed}", where=shown(url), fix=fix)
    study.sampler = Grid(study, space) if search == "grid" else Bayes(study, seed, space, start)
    return study


def _storage(url: str) -> optuna.storages.RDBStorage:
    kind = sqlalchemy.make_url(url).get_backend_name()
    try:
        return optuna.storages.RDBStorage(
            url,
            engine_kwargs={"connect_args": {"timeout": _LOCK_SECONDS}} if kind == "sqlite" else None,
            heartbeat_interval=_BEAT_SECONDS,
            grace_period=_SILENT_SECONDS,
            heartbeat_stale_trial_callback=try_again,
        )
    except ImportError as error:
        name = getattr(error.__cause__ or error, "name", None)
        what = f"package {name!r} is not installed, which talks to this storage"
        raise MissingError(what, where=shown(url), fix="install it with pip") from None


@contextmanager
def answering(url: str) -> Iterator[None]:
    """Turn the errors of a storage into one line.

    Raises:
        UsageError: ``url`` is none.
        MissingError: The storage does not answer.
    """
    try:
        yield
    except sqlalchemy.exc.ArgumentError:
        fix = "for example sqlite:///tune.db or postgresql://USER:PASSWORD@HOST/NAME"
        raise UsageError("not the URL of a storage", where=f"--storage {shown(url)}", fix=fix) from None
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, sqlalchemy.exc.SQLAlchemyError) else error
        fix = "see that it is there and can be reached; finished trials are kept in it"
        what = f"the storage does not answer: {first_line(cause)}"
        raise MissingError(what, where=shown(url), fix=fix) from None


def shown(url: str) -> str:
    """A storage's URL without its password."""
    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return url


def make_pruner(name: str, epochs: int) -> optuna.pruners.BasePruner:
    """Decides after each epoch whether a trial ends early.

    Args:
        name: ``median``: it is worse than half of the others at the same epoch. ``hyperband``: of each group of trials
            the best third goes on (https://arxiv.org/abs/1603.06560). ``none``: never.
        epochs: Of a whole trial.
    """
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=_FIRST_TRIALS, n_warmup_steps=epochs // 5)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=3)
    return optuna.pruners.NopPruner()


def begun(study: optuna.Study) -> int:
    """Trials that are done or being trained; those that must be tried again do not count."""
    counted = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    return len(study.get_trials(deepcopy=False, states=counted))


def claim(trial: optuna.Trial) -> None:
    """Note that this process trains the trial."""
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}
    trial.set_user_attr(_OWNER, owner)


def revive(study: optuna.Study) -> list[int]:
    """Trials whose process on this computer is dead become trials to be tried again.

    Returns:
        Their numbers.
    """
    found = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not _is_dead(trial.user_attrs.get(_OWNER)):
            continue
        with suppress(ValueError, optuna.exceptions.UpdateFinishedTrialError):  # another process was faster
            study.tell(trial.number, state=TrialState.FAIL)
            try_again(study, trial)
            found.append(ordinal(study, trial))
    return found


def try_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Let the next free process do a trial that failed, with the same values and in the same folder."""
    study.enqueue_trial(trial.params, user_attrs={RETRY: ordinal(study, trial)})


def _is_dead(owner: Mapping[str, Any] | None) -> bool:
    if not owner or owner["host"] != socket.gethostname() or not owner["started"]:
        return False
    return _started(owner["pid"]) != owner["started"]


def _started(pid: int) -> str:
    """When a process was started, in the system's ticks; "" if there is no such process, or no way to know."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else fields[18]


def twin(study: optuna.Study, trial: optuna.Trial) -> FrozenTrial | None:
    """A finished trial with the same values: a training of the same recipe ends with the same figures."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return next((other for other in done if other.params == trial.params), None)


_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.RUNNING: "running"}


def trial_rows(study: optuna.Study, space: Space) -> list[dict[str, Any]]:
    """The trials in their order, as JSON: ``number``, ``state``, ``score``, ``values`` and what the trial noted."""
    rows = []
    for trial in study.get_trials(deepcopy=False, states=tuple(_STATES)):
        notes = {k: v for k, v in trial.user_attrs.items() if k not in (RETRY, _OWNER)}
        rows.append(
            {
                "number": ordinal(study, trial),
                "state": "failed" if ERROR in notes else _STATES[trial.state],
                "score": trial.value if trial.state == TrialState.COMPLETE else None,
                "values": decoded(space, trial.params),
                "epochs": len(trial.intermediate_values),
                **notes,
            }
        )
    return sorted(rows, key=lambda row: row["number"])


def best_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Of ``trial_rows`` the one with the highest score, of equal ones the first; None if none has a score."""
    return max((row for row in rows if row["score"] is not None), key=lambda row: row["score"], default=None)


def importance(study: optuna.Study) -> dict[str, float]:
    """The share of each key in what separates good trials from the others; empty while there are too few trials.

    PED-ANOVA (https://arxiv.org/abs/2304.10255).
    """
    scored = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(scored) < _FEWEST_JUDGED:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    with warnings.catch_warnings(), suppress(ValueError, RuntimeError, ZeroDivisionError):
        warnings.simplefilter("ignore")
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
    return {}
