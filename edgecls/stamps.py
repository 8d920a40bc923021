"""Stages of a run and their stamps: what a stage read, what it wrote, and which input changed since.

A stamp records the inputs of a stage key by key, so that another run of the stage can say which one changed, and the
SHA-256 of every file that it read or wrote. While all of that holds the stage is done and is not run again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecls.errors import EdgeclsError, MissingError
from edgecls.files import atomic, sha256, size, write_json

if TYPE_CHECKING:
    from edgecls.run import Run

Fingerprint = dict[str, Any]
"""Inputs of a stage by dotted key: plain values, and for a file ``"sha256:..."`` of its content."""

_SHOWN = 3  # changed inputs that a line names
_LONG = 24  # characters of a value that a line still shows


def fingerprint(inputs: Mapping[str, Any]) -> Fingerprint:
    """What identifies the inputs of a stage.

    Args:
        inputs: Anything JSON can hold, recipe sections, and Paths, which stand for their content.

    Raises:
        TypeError: A value is none of these.

    Example:
        >>> fingerprint({"train": {"epochs": 3, "optimizer": {"lr": 0.1}}, "seed": 0})
        {'train.epochs': 3, 'train.optimizer.lr': 0.1, 'seed': 0}
    """
    flat: Fingerprint = {}
    for key, value in inputs.items():
        if hasattr(value, "model_dump"):
            value = value.model_dump()
        if isinstance(value, Mapping) and value:
            flat |= {f"{key}.{inner}": leaf for inner, leaf in fingerprint(value).items()}
        elif isinstance(value, Path):
            flat[key] = f"sha256:{sha256(value)}"
        else:
            flat[key] = json.loads(json.dumps(value))
    return flat


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Which inputs differ between two fingerprints, for a person; empty if none does.

    Example:
        >>> changes({"train.epochs": 3, "seed": 0}, {"train.epochs": 5, "seed": 0})
        'train.epochs 3 -> 5'
    """
    missing = object()
    keys = [k for k in dict.fromkeys([*now, *before]) if before.get(k, missing) != now.get(k, missing)]
    texts = [_change(key, before.get(key), now.get(key)) for key in keys[:_SHOWN]]
    return ", ".join(texts) + (f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")


def _change(key: str, before: Any, now: Any) -> str:
    texts = [json.dumps(value) for value in (before, now)]
    if any(len(text) > _LONG for text in texts):
        return key.removesuffix(".sha256")
    return f"{key} {texts[0]} -> {texts[1]}"


class Stage:
    """One stage of a run (``Run.stage``).

    Attributes:
        inputs: Fingerprint of what the stage depends on.
        outputs: Files or folders that it writes, relative to the run.
        stamp: What was stamped when the stage ended last, or ``{}``.
    """

    def __init__(self, run: Run, name: str, inputs: Mapping[str, Any], outputs: Sequence[str]) -> None:
        self.run, self.name, self.outputs = run, name, list(outputs)
        paths = {key: value for key, value in inputs.items() if isinstance(value, Path)}
        for key, path in paths.items():
            if not path.exists():
                fix = "run the stage that makes it"
                raise MissingError(f"stage {name} needs {key}", where=str(path), fix=fix)
        self.inputs = fingerprint(inputs)
        self._reads = {
            path.relative_to(run.path).as_posix(): self.inputs[key].removeprefix("sha256:")
            for key, path in paths.items()
            if path.is_relative_to(run.path)
        }
        self._began = time.monotonic()
        self.stamp = read_stamp(self._file)

    @property
    def _file(self) -> Path:
        return self.run.file("stamps", f"{self.name}.json")

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
        """Why the stage is not done, for a person; "" when it is."""
        if not self.stamp:
            return "not run yet"
        if changed := changes(self.stamp["inputs"], self.inputs):
            return f"changed: {changed}"
        for name in self.outputs:
            if name not in self.stamp["outputs"]:
                return f"missing: {name}"
        return altered(self.run, self.stamp["outputs"])

    def take_from(self, other: Run) -> bool:
        """Take the outputs, stamp and curves over from another run, if that has finished this stage from equal inputs."""
        stamp = read_stamp(other.file("stamps", f"{self.name}.json"))
        same = (
            stamp and not changes(stamp["inputs"], self.inputs) and set(self.outputs) <= set(stamp["outputs"])
        )
        if not same or altered(other, stamp["outputs"]):
            return False
        for name in self.outputs:
            with atomic(self.run.file(name)) as part:
                (shutil.copytree if other.file(name).is_dir() else shutil.copyfile)(other.file(name), part)
        self.run.add_metrics([row for row in other.metrics() if row["stage"] == self.name])
        write_json(self._file, stamp)
        self.stamp = stamp
        return True

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
            "schema": "edgecls.stamp/2",
            "stage": self.name,
            "inputs": self.inputs,
            "reads": self._reads,
            "outputs": {n: {"bytes": size(p), "sha256": sha256(p)} for n, p in paths.items()},
            "seconds": round(time.monotonic() - self._began, 2),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "figures": figures,
        }
        write_json(self._file, self.stamp)


def read_stamp(path: Path) -> dict[str, Any]:
    """A stamp's content; ``{}`` where there is none or it is damaged."""
    with suppress(OSError, ValueError):
        stamp = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(stamp, dict) and stamp.get("schema") == "edgecls.stamp/2":
            return stamp
    return {}


def altered(run: Run, outputs: Mapping[str, Any]) -> str:
    """Which of a stamp's outputs is gone or no longer what was written, for a person; "" if none."""
    for name, was in outputs.items():
        path = run.file(name)
        if not path.exists():
            return f"missing: {name}"
        if size(path) != was["bytes"] or sha256(path) != was["sha256"]:
            return f"altered: {name}"
    return ""
