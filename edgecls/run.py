"""The run folder: where a run's files are, which stages are done, how an interrupted one goes on.

::

    runs/<name>/<YYYYmmdd-HHMMSS>/
        recipe.yaml  env.json  log.jsonl  metrics.jsonl  metrics.csv  stamps/<stage>.json  checkpoints/<stage>/  old/  ...
    runs/latest -> the run that last finished a stage of training

A stage reads files and writes files (``edgecls.stamps``). Every file is written to a temporary name and renamed, so a
file that exists is whole. When a stage is done anew, what was made from its former files moves to ``old/<time>/``.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecls.errors import EdgeclsError, MissingError, UsageError
from edgecls.files import (
    TEMPORARY,
    append_jsonl,
    atomic,
    read_jsonl,
    sha256,
    sweep,
    to_csv,
    write_json,
    write_text,
)
from edgecls.stamps import Stage, altered, read_stamp

if TYPE_CHECKING:
    from edgecls.recipe import Recipe

__all__ = ["Run", "Stage", "atomic", "read_jsonl", "sha256", "write_json", "write_text"]

_locks: dict[Path, int] = {}  # run folder -> descriptor; held until released or the process ends


class Run:
    """A run folder. Get one with ``Run.start`` (to train) or ``Run.find`` (everything else).

    Attributes:
        path: The folder, absolute.

    Example:
        >>> run = Run.find()  # doctest: +SKIP
        >>> run.recipe.model.name  # doctest: +SKIP
        'MobileNetV3_small_x1_0'
    """

    def __init__(self, path: str | Path, root: str | Path | None = None) -> None:
        self.path = Path(path).absolute()
        self._root = None if root is None else Path(root)  # where ``latest`` follows this run

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    # Getting a run

    @classmethod
    def start(
        cls,
        recipe: Recipe,
        root: str | Path = "runs",
        directory: str | Path | None = None,
        fresh: bool = False,
    ) -> Run:
        """Continue the newest run of this training, or begin a new one; the run is locked to this process.

        A run is of this training if the recipes differ at most in how the trained network is quantized, exported and
        measured (``Recipe.training_hash``). The run then takes over those sections.

        Args:
            recipe: The resolved recipe.
            root: Folder of all runs.
            directory: The run folder itself instead of ``root/name/time``.
            fresh: Begin anew. An old run in ``directory`` is moved aside to ``<directory>.old-<time>``.

        Raises:
            UsageError: ``directory`` holds another recipe, or something that is no run.
            EdgeclsError: Another process works in the run.
        """
        found = cls.matching(recipe, root, directory, fresh)
        if found is None and directory is None:
            found = _new_run(Path(root) / recipe.name)
        elif found is None:
            found = _run_in(Path(directory or ""))
        run = cls(found.path, root)
        run.lock()
        run.save_recipe(recipe)
        if not run.file("env.json").exists():
            from edgecls.environment import environment

            write_json(run.file("env.json"), environment())
        run.log("start", pid=os.getpid(), recipe=recipe.hash()[:12])
        return run

    @classmethod
    def matching(
        cls,
        recipe: Recipe,
        root: str | Path = "runs",
        directory: str | Path | None = None,
        fresh: bool = False,
    ) -> Run | None:
        """The run that ``start`` would continue, or None where it would begin a new one; nothing is changed.

        Raises:
            UsageError: ``directory`` holds another recipe, or something that is no run.
        """
        if directory is None:
            same = [] if fresh else [r for r in _runs(Path(root) / recipe.name) if r.is_of(recipe)]
            return same[-1] if same else None
        run = cls(directory)
        if not _is_run(run.path):
            if _occupied(run.path):
                fix = "name a new folder"
                raise UsageError("--run is not a run folder and not empty", where=str(directory), fix=fix)
            return None
        if fresh:
            return None
        if not run.is_of(recipe):
            fix = "use another folder, or --fresh to move the old run aside"
            raise UsageError("this run was made from a different recipe", where=str(directory), fix=fix)
        return run

    @classmethod
    def find(cls, path: str | Path | None = None, root: str | Path = "runs") -> Run:
        """An existing run.

        Args:
            path: A run folder, a folder of runs or a run's name (then its newest), or None: the newest that has
                finished a stage.
            root: Folder of all runs.

        Raises:
            MissingError: There is no run yet.
            UsageError: ``path`` is no run.
        """
        root = Path(root)
        if path is None:
            latest = root / "latest"
            runs = (
                [cls(latest.resolve())] if _is_run(latest) else [r for r in _runs(root, "*/*") if r.stamps()]
            )
            if not runs:
                raise MissingError(
                    "there is no run yet", where=f"{root}/", fix="start one with: edgecls train RECIPE"
                )
            return runs[-1]
        for folder in (Path(path), root / path):
            if _is_run(folder):
                return cls(folder.resolve())
            if inside := _runs(folder):
                return inside[-1]
        names = ", ".join(sorted({r.path.parent.name for r in _runs(root, "*/*")}))
        raise UsageError("not a run", where=str(path), fix=f"known: {names}" if names else "see runs/")

    def make_latest(self) -> None:
        """Let ``latest`` point to this run, if ``Run.start`` gave it."""
        if self._root is None:
            return
        root = self._root
        root.mkdir(parents=True, exist_ok=True)
        inside = self.path.is_relative_to(root.absolute())
        target = self.path.relative_to(root.absolute()) if inside else self.path
        temporary = root / f".latest{TEMPORARY}{os.getpid()}"
        with suppress(OSError):  # a file system without links: find() goes by time
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(target)
            temporary.replace(root / "latest")

    # What is in it

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe of the run."""
        from edgecls.recipe import load_recipe

        return load_recipe(self.path / "recipe.yaml")

    def others(self) -> list[Run]:
        """Runs of the same name, the newest first: a stage that they have done need not be done again."""
        found = [] if self._root is None else _runs(self._root / self.recipe.name)
        return [run for run in reversed(found) if run.path.resolve() != self.path.resolve()]

    def save_recipe(self, recipe: Recipe) -> None:
        """Write the resolved recipe: what the run's files are made by from now on."""
        text = "# Resolved by edgecls; runs as it is.\n" + recipe.dump()
        path = self.file("recipe.yaml")
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)

    def is_of(self, recipe: Recipe) -> bool:
        """Whether the run's training was made from an equal recipe."""
        try:
            return self.recipe.training_hash() == recipe.training_hash()
        except UsageError:  # written by a version with other keys
            return False

    def file(self, *parts: str) -> Path:
        """Path of a file of the run; it need not exist."""
        return self.path.joinpath(*parts)

    def require(self, *parts: str, fix: str) -> Path:
        """Path of a file that must exist; MissingError with ``fix`` (what makes it) if it does not."""
        path = self.file(*parts)
        if not path.exists():
            raise MissingError(f"the run has no {'/'.join(parts)}", where=str(self.path), fix=fix)
        return path

    # Working in it

    @contextmanager
    def _unlocking(self) -> Iterator[Run]:
        try:
            yield self
        finally:
            self.unlock()

    def lock(self) -> Any:
        """Lock the run to this process until it ends, or until the end of ``with run.lock():``.

        What a killed process left half done is cleared up.

        Raises:
            EdgeclsError: Another process has it; the line says its PID.
        """
        path = self.path.resolve()
        if path not in _locks:
            descriptor = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
                os.close(descriptor)
                fix = "wait for it, or use --fresh for a new run"
                raise EdgeclsError(
                    f"process {owner} works in this run", where=str(self.path), fix=fix
                ) from None
            except OSError:
                pass  # a file system without locks: go on without
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            _locks[path] = descriptor
            sweep(path)
        return self._unlocking()

    def unlock(self) -> None:
        """Let other processes work in the run."""
        descriptor = _locks.pop(self.path.resolve(), None)
        if descriptor is not None:
            os.close(descriptor)

    def stage(self, name: str, inputs: Mapping[str, Any], outputs: Sequence[str]) -> Stage:
        """A stage of work.

        Args:
            name: Its name; the stamp is ``stamps/<name>.json``.
            inputs: What it depends on: a Path (by content), recipe sections, or anything JSON takes.
            outputs: Files or folders it writes, relative to the run.
        """
        return Stage(self, name, inputs, outputs)

    def stamps(self) -> dict[str, dict[str, Any]]:
        """The stamps of finished stages by name, in the order in which they finished."""
        paths = sorted(self.file("stamps").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        stamps = filter(None, map(read_stamp, paths))
        # A copied run has other times of files, so they only decide between stages of the same second.
        return {stamp["stage"]: stamp for stamp in sorted(stamps, key=lambda stamp: stamp["finished"])}

    def current(self, stage: str) -> bool:
        """Whether a stage is finished, and what it read and wrote in this run is still the same."""
        stamp = self.stamps().get(stage)
        return stamp is not None and not altered(self, stamp["outputs"]) and not self._read_others(stamp)

    def _read_others(self, stamp: Mapping[str, Any]) -> bool:
        """Whether a stage read files that are others now; a file that is gone tells nothing."""
        return any(
            self.file(name).exists() and sha256(self.file(name)) != digest
            for name, digest in stamp["reads"].items()
        )

    def retire_stale(self) -> tuple[list[str], str]:
        """Move what was made from files that have changed since to ``old/<time>/``, and what was made from that.

        Returns:
            Names of the files that were moved, relative to the run, and the folder they are in now.
        """
        moved: list[str] = []
        folder = f"old/{_now()}"
        stamps = self.stamps()
        while stale := [s for s in stamps.values() if self._read_others(s) or set(s["reads"]) & set(moved)]:
            for stamp in stale:
                files = [f"stamps/{stamp['stage']}.json", *stamp["outputs"]]
                for name in [name for name in files if self.file(name).exists()]:
                    target = self.file(folder, name)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    self.file(name).replace(target)
                moved += stamp["outputs"]
                del stamps[stamp["stage"]]
        return moved, folder

    def log(self, event: str, **fields: Any) -> None:
        """Append one line to log.jsonl and force it to disk."""
        append_jsonl(self.path / "log.jsonl", {"time": _iso(), "event": event, **fields})

    def metric(self, stage: str, epoch: int, **values: float) -> None:
        """Append the figures of one epoch (counted from 0) to metrics.jsonl, and write all to metrics.csv."""
        self.add_metrics([{"stage": stage, "epoch": epoch, "time": _iso(), **values}])

    def add_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows of ``metrics``."""
        for row in rows:
            append_jsonl(self.path / "metrics.jsonl", dict(row))
        write_text(self.path / "metrics.csv", to_csv(self.metrics()))

    def metrics(self) -> list[dict[str, Any]]:
        """One row per (stage, epoch), in order; epochs that were run again after a resume supersede the old ones."""
        rows: dict[str, dict[int, dict[str, Any]]] = {}
        for row in read_jsonl(self.path / "metrics.jsonl"):
            epochs = rows.setdefault(row["stage"], {})
            for later in [e for e in epochs if e >= row["epoch"]]:
                del epochs[later]
            epochs[row["epoch"]] = row
        return [row for epochs in rows.values() for _, row in sorted(epochs.items())]


def _is_run(folder: Path) -> bool:
    return (folder / "recipe.yaml").is_file()


def _runs(folder: Path, pattern: str = "*") -> list[Run]:
    """Runs in a folder, oldest first; names are times, so they sort."""
    found = [p for p in folder.glob(pattern) if _is_run(p) and not p.is_symlink() and TEMPORARY not in p.name]
    return [Run(p) for p in sorted(found, key=lambda p: (p.name, (p / "recipe.yaml").stat().st_mtime))]


def _occupied(folder: Path) -> bool:
    """Whether something stands in the way of a new run: hidden files, such as a lock, do not."""
    if not folder.is_dir():
        return folder.exists()
    return any(not p.name.startswith(".") for p in folder.iterdir())


def _new_run(parent: Path) -> Run:
    """A folder that this process alone has made, however many begin a run in the same second."""
    stamp = _now()
    for number in itertools.count(1):
        folder = parent / (stamp if number == 1 else f"{stamp}-{number:02d}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return Run(folder)
    raise AssertionError


def _run_in(folder: Path) -> Run:
    """An empty, locked folder of the user's choice; a run that is in it is moved aside first."""
    run = Run(folder)
    if _is_run(folder):
        with run.lock():  # not under the feet of a process that works there
            folder.rename(f"{run.path}.old-{_now()}")
    folder.mkdir(parents=True, exist_ok=True)
    run.lock()
    if _occupied(folder):
        run.unlock()
        raise EdgeclsError(
            "another process has begun a run here", where=str(folder), fix="name another folder"
        )
    return run


def _now() -> str:
    return time.strftime("%Y%m%d-%H%M%S")


def _iso() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
