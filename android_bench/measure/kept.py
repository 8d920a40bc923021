"""Rounds are kept as they come, so that a session that was killed goes on with those that are missing.

They are kept under ``<cache>/measured``, one file for each model and thread count. They are found again only where all
that made them is the same: the model's content, the device with its program or runtime, delegate and cores, the
protocol, the thread count, and the code of this package.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from android_bench.folders import cache_dir
from android_bench.measure.checks import loaded_problem, round_problem
from android_bench.measure.protocol import Backend, Loaded, Protocol, Round
from android_bench.models import ModelFile
from android_bench.output.documents import SCHEMA, atomic
from android_bench.output.parse import Stat

_PACKAGE = Path(__file__).parents[1]


class Kept:
    """Rounds of earlier sessions on one device by one protocol.

    Args:
        backend: The device; only a hash of its identity is stored.
        protocol: How it is measured.
        turns: Of a comparison, the models that take turns: their rounds belong together, and those of another
            session do not.
        fresh: There are none; those of this session take their place.
    """

    def __init__(
        self,
        backend: Backend,
        protocol: Protocol,
        turns: Sequence[ModelFile] = (),
        *,
        fresh: bool = False,
    ) -> None:
        self.folder = cache_dir() / "measured"
        self._backend, self._turns, self._fresh = backend, list(turns), fresh
        made_by = [SCHEMA, _code_digest(), dataclasses.asdict(protocol), [m.sha256 for m in self._turns]]
        self._setting = json.dumps(made_by, sort_keys=True)
        self._devices: dict[int, str] = {}

    def get(self, model: ModelFile, threads: int) -> tuple[Loaded, list[Round]] | None:
        """How a model was loaded and its rounds; None where there are none, or they cannot be read."""
        if self._fresh:
            return None
        try:
            record = json.loads(self._path(model, threads).read_text(encoding="utf-8"))
            loaded = Loaded(**record["loaded"] | {"notes": tuple(record["loaded"]["notes"])})
            if why := loaded_problem(loaded):
                raise ValueError(why)
            rounds = [_round(row) for row in record["rounds"]]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return loaded, rounds

    def put(self, model: ModelFile, threads: int, loaded: Loaded, rounds: Sequence[Round]) -> None:
        """Keeps the rounds so far.

        Raises:
            BenchError: The cache cannot be written, or the disk is full.
        """
        record = {"loaded": dataclasses.asdict(loaded), "rounds": [dataclasses.asdict(r) for r in rounds]}
        with atomic(self._path(model, threads), parents=True) as part:
            part.write_text(json.dumps(record, allow_nan=False), encoding="utf-8")

    def drop(self, model: ModelFile, threads: int) -> None:
        """Forgets the rounds of a model.

        Raises:
            OSError: The cache cannot be written.
        """
        self._path(model, threads).unlink(missing_ok=True)

    def _path(self, model: ModelFile, threads: int) -> Path:
        place = self._turns.index(model) if model in self._turns else None
        text = json.dumps([self._setting, self._device(threads), model.sha256, threads, place])
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"

    def _device(self, threads: int) -> str:
        if threads not in self._devices:
            self._devices[threads] = json.dumps(self._backend.identity((threads,)), sort_keys=True)
        return self._devices[threads]


def _round(row: dict[str, Any]) -> Round:
    """A round as it was kept. Raises ValueError or TypeError when it is none."""
    kept = Round(**row | {"stat": row["stat"] and Stat(**row["stat"]), "notes": tuple(row["notes"])})
    if why := round_problem(kept):
        raise ValueError(why)
    return kept


@functools.cache
def _code_digest() -> str:
    """Hash of this package's code: other code may measure otherwise."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(_PACKAGE)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
