"""A device whose rounds are given, to test what a session makes of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from android_bench.measure.protocol import Loaded, Protocol, Round
from android_bench.measure.session import Session
from android_bench.models import ModelFile


def quiet(median: float, **what: Any) -> Round:
    return Round([median] * 5, foreign_cores=0.0, wait=0.0, switches=0, seconds=1.0, **what)


class Played:
    """A backend whose rounds are given: a list of rounds, or errors to raise, for each model name."""

    cores, foreign_limit, name = 2, 0.2, "played"

    def __init__(self, script: dict[str, list[Any]]) -> None:
        self.script, self.settled, self.open_now, self.settles = script, 0, 0, True

    def describe(self) -> dict[str, Any]:
        return {"kind": "played", "name": self.name}

    def identity(self, threads: Sequence[int]) -> dict[str, Any]:
        return {**self.describe(), "threads": list(threads)}

    def state(self) -> dict[str, Any]:
        return {}

    def settle(self) -> bool:
        self.settled += 1
        return self.settles

    def rest(self, seconds: float) -> None:
        time.sleep(seconds)

    def open(self, model: ModelFile, threads: int, seed: int) -> Any:
        backend, steps = self, iter(self.script[model.name])

        class Runner:
            def load(self) -> Loaded:
                backend.open_now += 1
                return Loaded(1.0, 2.0)

            def measure(self, protocol: Protocol) -> Round:
                step = next(steps)
                if isinstance(step, BaseException):
                    raise step
                return step

            def close(self) -> None:
                backend.open_now -= 1

        return Runner()


def play(script: dict[str, list[Any]], threads: int = 1, **protocol: Any) -> tuple[dict[str, Any], Played]:
    backend = Played(script)
    files = [ModelFile(Path(name), name, "0" * 64, 1) for name in script]
    plan = Protocol(**{"rounds": 3, "spacing_s": 0.0, **protocol})
    return Session(backend, files, [threads], plan).run(), backend


BUSY = Round([5.0] * 5, foreign_cores=1.5, wait=0.0)
WAITING = Round([5.0] * 5, foreign_cores=None, wait=0.3)
