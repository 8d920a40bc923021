"""The run folder: where a run's files are, which stages are done, how an interrupted one goes on.

::

    runs/<name>/<YYYYmmdd-HHMMSS>/
        recipe.yaml  env.json  log.jsonl  metrics.jsonl  stamps/<stage>.json  checkpoints/<stage>/  ...
    runs/latest -> the run that was started last

A stage reads files and writes files. When it ends, its stamp records the SHA-256 of what it read and wrote; while
that still holds the stage is done and is not run again. Every file is written to a temporary name and renamed, so a
file that exists is whole.
"""

from __future__ import annotations

import fcntl
import json
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
    hash_json,
    read_jsonl,
    remove,
    sha256,
    size,
    write_json,
    write_text,
)

if TYPE_CHECKING:
    from edgecls.recipe import Recipe

__all__ = ["Run", "Stage", "atomic", "read_jsonl", "sha256", "write_json", "write_text"]

_locks: dict[Path, int] = {}  # run folder -> descriptor; held until released or the process ends


class Run:
    """A run folder. Get one with ``Run.start`` (to train) or ``Run.find`` (everything else).

    Attributes:
        path: The folder, absolute.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()

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
        """Continue the newest run of this very recipe, or begin a new one; the run is locked to this process.

        Args:
            recipe: The resolved recipe.
            root: Folder of all runs.
            directory: The run folder itself instead of ``root/name/time``.
            fresh: Begin anew. An old run in ``directory`` is moved aside to ``<directory>.old-<time>``.

        Raises:
            UsageError: ``directory`` holds another recipe, or something that is no run.
            EdgeclsError: Another process works in the run.
        """
        root = Path(root)
        if directory is not None:
            run = cls._in_directory(recipe, Path(directory), fresh)
        else:
            same = [] if fresh else [r for r in _runs(root / recipe.name) if r.is_of(recipe)]
            run = same[-1] if same else cls._create(recipe, _new_folder(root / recipe.name))
        run.lock()
        run.log("start", pid=os.getpid(), recipe=recipe.hash()[:12])
        run._make_latest(root)
        return run

    @classmethod
    def find(cls, path: str | Path | None = None, root: str | Path = "runs") -> Run:
        """An existing run.

        Args:
            path: A run folder, a folder of runs or a run's name (then its newest), or None: the newest of all.
            root: Folder of all runs.

        Raises:
            MissingError: There is no run yet.
            UsageError: ``path`` is no run.
        """
        root = Path(root)
        if path is None:
            latest = root / "latest"
            runs = [cls(latest.resolve())] if _is_run(latest) else _runs(root, "*/*")
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
        known = ", ".join(sorted({r.path.parent.name for r in _runs(root, "*/*")}))
        raise UsageError("not a run", where=str(path), fix=f"known: {known}" if known else "see runs/")

    @classmethod
    def _in_directory(cls, recipe: Recipe, folder: Path, fresh: bool) -> Run:
        run = cls(folder)
        occupied = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        if occupied and not _is_run(folder):
            raise UsageError(
                "--run is not a run folder and not empty", where=str(folder), fix="name a new folder"
            )
        if occupied and not fresh:
            if run.is_of(recipe):
                return run
            fix = "use another folder, or --fresh to move the old run aside"
            raise UsageError("this run was made from a different recipe", where=str(folder), fix=fix)
        if occupied:
            with run.lock():  # not under the feet of a process that works there
                folder.rename(f"{run.path}.old-{_now()}")
        return cls._create(recipe, run.path)

    @classmethod
    def _create(cls, recipe: Recipe, folder: Path) -> Run:
        """Make the folder whole under another name, then rename it, so that no half-made run is ever found."""
        from edgecls.environment import environment

        with atomic(folder) as temporary:
            write_text(temporary / "recipe.yaml", "# Resolved by edgecls; runs as it is.\n" + recipe.dump())
            write_json(temporary / "env.json", environment())
        return cls(folder)

    def _make_latest(self, root: Path) -> None:
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

    def is_of(self, recipe: Recipe) -> bool:
        """Whether the run was made from an equal resolved recipe."""
        try:
            return self.recipe.hash() == recipe.hash()
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

        Temporary files which a killed process left behind are removed.

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
            for left in path.rglob(f".*{TEMPORARY}*"):
                remove(left)
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

    def log(self, event: str, **fields: Any) -> None:
        """Append one line to log.jsonl and force it to disk."""
        append_jsonl(self.path / "log.jsonl", {"time": _iso(), "event": event, **fields})

    def metric(self, stage: str, epoch: int, **values: float) -> None:
        """Append the figures of one epoch (counted from 0) to metrics.jsonl."""
        append_jsonl(self.path / "metrics.jsonl", {"stage": stage, "epoch": epoch, "time": _iso(), **values})

    def metrics(self) -> list[dict[str, Any]]:
        """One row per (stage, epoch), in order; epochs that were run again after a resume supersede the old ones."""
        rows: dict[str, dict[int, dict[str, Any]]] = {}
        for row in read_jsonl(self.path / "metrics.jsonl"):
            epochs = rows.setdefault(row["stage"], {})
            for later in [e for e in epochs if e >= row["epoch"]]:
                del epochs[later]
            epochs[row["epoch"]] = row
        return [row for epochs in rows.values() for _, row in sorted(epochs.items())]


class Stage:
    """One stage of a run (``Run.stage``).

    Attributes:
        stamp: What was stamped when the stage ended last, or ``{}``.
        why: Why it is not done, for the log; "" when it is.
    """

    def __init__(self, run: Run, name: str, inputs: Mapping[str, Any], outputs: Sequence[str]) -> None:
        self.run, self.name, self.outputs = run, name, list(outputs)
        self.inputs: dict[str, str] = {}
        for key, value in inputs.items():
            if isinstance(value, Path) and not value.exists():
                raise MissingError(
                    f"stage {name} needs {key}", where=str(value), fix="run the stage that makes it"
                )
            self.inputs[key] = hash_json(value)
        self._file = run.file("stamps", f"{name}.json")
        self._began = time.monotonic()
        self.stamp: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            self.stamp = json.loads(self._file.read_text(encoding="utf-8"))

    @property
    def done(self) -> bool:
        """Whether the stamp's inputs are these and every output is as it was stamped."""
        return not self.why

    @property
    def figures(self) -> dict[str, Any]:
        """What ``finish`` was given when the stage ended last."""
        return self.stamp.get("figures", {})

    @property
    def why(self) -> str:
        if not self.stamp:
            return "not run yet"
        stamped = self.stamp["inputs"]
        if changed := sorted(k for k in {*stamped, *self.inputs} if stamped.get(k) != self.inputs.get(k)):
            return f"changed: {', '.join(changed)}"
        for name in self.outputs:
            was, path = self.stamp["outputs"].get(name), self.run.file(name)
            if was is None or not path.exists():
                return f"missing: {name}"
            if size(path) != was["bytes"] or sha256(path) != was["sha256"]:
                return f"altered: {name}"
        return ""

    def finish(self, **figures: Any) -> None:
        """Stamp the stage as done; ``figures`` are kept in the stamp.

        Raises:
            EdgeclsError: A promised output was not written.
        """
        paths = {name: self.run.file(name) for name in self.outputs}
        for name, path in paths.items():
            if not path.exists():
                raise EdgeclsError(f"stage {self.name} did not write {name}", where=str(self.run.path))
        self.stamp = {
            "schema": "edgecls.stamp/1",
            "stage": self.name,
            "inputs": self.inputs,
            "outputs": {n: {"bytes": size(p), "sha256": sha256(p)} for n, p in paths.items()},
            "seconds": round(time.monotonic() - self._began, 2),
            "finished": _iso(),
            "figures": figures,
        }
        write_json(self._file, self.stamp)


def _is_run(folder: Path) -> bool:
    return (folder / "recipe.yaml").is_file()


def _runs(folder: Path, pattern: str = "*") -> list[Run]:
    """Runs in a folder, oldest first; names are times, so they sort."""
    found = [p for p in folder.glob(pattern) if _is_run(p) and not p.is_symlink() and TEMPORARY not in p.name]
    return [Run(p) for p in sorted(found, key=lambda p: (p.name, (p / "recipe.yaml").stat().st_mtime))]


def _new_folder(parent: Path) -> Path:
    stamp = _now()
    names = [stamp, *(f"{stamp}-{i:02d}" for i in range(2, 100))]
    return next(parent / name for name in names if not (parent / name).exists())


def _now() -> str:
    return time.strftime("%Y%m%d-%H%M%S")


def _iso() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
