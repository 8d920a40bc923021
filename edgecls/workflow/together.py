"""A training by several workers: who begins the run, who does a stage, who writes.

Every worker does the same work on its share of the images. The chief's run folder is the run. The others work in a folder
of their own that is removed afterwards, so the computers need no file system in common; what a later stage reads there was
sent by the chief.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecls.cluster import Cluster
from edgecls.console import Console
from edgecls.files import hash_json
from edgecls.quiet import import_tensorflow
from edgecls.recipe import Recipe, Train
from edgecls.run import Run
from edgecls.stamps import fingerprint
from edgecls.text import plural
from edgecls.workflow import common

if TYPE_CHECKING:
    import keras

Command = Callable[..., dict[str, Any]]


def together(command: Command) -> Command:
    """A command that trains, made for several workers: they wait for each other, and all get the chief's result.

    Args:
        command: Its second argument is a ``Console``; only the chief speaks. Where ``leads`` is False it returns early.

    Raises:
        EdgeclsError: Another worker is gone.
    """

    @functools.wraps(command)
    def run(first: Any, console: Console, *args: Any, **options: Any) -> dict[str, Any]:
        import_tensorflow()
        from edgecls.train.distribution import lost_workers_are_told, workers

        team = workers()  # before TensorFlow does anything else
        if team.count == 1:
            return command(first, console, *args, **options)
        if not team.chief:
            console.log(f"{team.cluster.name}: pid {os.getpid()}, follows {team.cluster.addresses[0]}")
            console = Console(json=console.json, quiet=True)
        with lost_workers_are_told():
            result = command(first, console, *args, **options)
            return team.ask_chief(lambda: result)

    return run


def leads() -> bool:
    """Whether this process is the chief, who scores and reports alone; a process that trains alone is."""
    return Cluster.from_environment().chief


def check_devices(trainings: Mapping[str, Train | None]) -> None:
    """Refuse batches that cannot be divided over the devices, before anything is trained.

    Args:
        trainings: Sections of the recipe by their places, for example ``quantize.train``; None: no such training.
    """
    from edgecls.train.distribution import check_batch, workers

    for section, config in trainings.items():
        if config is not None:
            check_batch(section, config, workers().devices)


def begin_run(recipe: Recipe, directory: str | Path | None, fresh: bool, root: str | Path = "runs") -> Run:
    """``Run.start`` for the chief; for another worker a run in a temporary folder."""
    from edgecls.train.distribution import workers

    team = workers()
    started: list[Run] = []

    def start() -> str:
        started.append(Run.start(recipe, root=root, directory=directory, fresh=fresh))
        return str(started[0].path)

    team.ask_chief(start)
    if team.chief:
        return started[0]
    folder = _scratch()
    return Run.start(recipe, root=folder, directory=folder / "run")


@contextmanager
def find_run(name: str | None, console: Console) -> Iterator[Run]:
    """The run that several workers are to quantize: the chief's, locked; the others' is a copy of what they need of it."""
    import_tensorflow()
    from edgecls.train.distribution import lost_workers_are_told, workers

    team = workers()
    found = Run(Path()) if team.chief else Run(_scratch() / "run")  # the chief has yet to find it

    def lock() -> list[str]:
        nonlocal found
        found = Run.find(name)
        console.log(f"run: {found.path}")
        found.lock()
        names = ["recipe.yaml", *(f"stamps/{stage}.json" for stage in found.stamps())]
        return [*names, *(n for n in ("float.keras", "teacher.keras") if found.file(n).exists())]

    with lost_workers_are_told():
        for part in team.ask_chief(lock):
            team.send(found.file(part))
    try:
        yield found
    finally:
        if team.chief:
            found.unlock()


def run_stage(
    run: Run,
    console: Console,
    name: str,
    inputs: dict[str, Any],
    outputs: list[str],
    work: Callable[[], dict[str, Any]],
    others: Sequence[Run] = (),
) -> None:
    """``common.run_stage`` by all workers, if the chief says that the stage is to be done; all have its files then.

    The stage is taken over from one of ``others``, if that has finished it from equal inputs.

    Raises:
        UsageError: A worker has other images, weights or settings than the chief.
    """
    from edgecls.train.distribution import check_same, workers

    team = workers()
    if team.chief:
        common.take_over(run, console, name, inputs, outputs, others)
    if team.count == 1:
        common.run_stage(run, console, name, inputs, outputs, work)
        return
    check_same("images, weights or settings", _digest(inputs), where=name)
    done = team.ask_chief(lambda: run.stage(name, inputs, outputs).done)
    if team.chief or not done:
        common.run_stage(run, console, name, inputs, outputs, work)
    for output in outputs:
        team.send(run.file(output))


def describe(model: keras.Model, config: Train, section: str) -> str:
    """What a training on several devices does, for a person: devices, batches, the learning rate's meaning.

    Example: ``2 workers with 1 device each: batches of 32, 16 on each device; ...``. Empty for one device.
    """
    from edgecls.train.distribution import workers

    team = workers()
    if team.devices == 1:
        return ""
    each = config.batch_size // (team.devices * config.accumulate)
    parts = [
        f"{plural(team.count, 'worker')}, {plural(team.devices, 'device')}: {section}.batch_size {config.batch_size} is that"
        f" of all together, {each} images at once on each; {section}.optimizer.lr {config.optimizer.lr:g} belongs to it"
        " (k times the batch: k times the rate)"
    ]
    if any(type(layer).__name__ == "BatchNormalization" for layer in model.layers):
        parts.append(f"batch normalization sees the {each} images of a device")
    return "; ".join(parts)


def _digest(inputs: Mapping[str, Any]) -> str:
    return hash_json(fingerprint(inputs))


@functools.cache
def _keep() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="edgecls-worker-")


def _scratch() -> Path:
    """A folder that is removed when this process ends."""
    return Path(_keep().name)
