"""What earlier sessions on a device showed: by how much the same figure differs from one session to the next.

A phone is not the same tomorrow: its clocks, its heat and its other programs slow all models alike for as long as a
session lasts. No session can see this in itself. So the medians of each session are kept, for each device one file of
lines under ``<cache>/sessions``, and whoever compares two sessions asks ``drift`` how much such medians differ.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from android_bench.errors import BenchError
from android_bench.folders import cache_dir

# What devices are assumed to drift until they have shown it.
ASSUMED = 0.04
_ENOUGH_DF = 4  # fewer repeated sessions may only show that a device drifts more than is assumed
_LAST = 1000  # sessions that are looked at
_DEVICE = ("kind", "name", "cpu", "soc_model", "platform", "cores", "memory_mib", "os")
_CASE = ("sha256", "threads", "runtime", "delegate", "mask")


@dataclass(frozen=True)
class Drift:
    """How sessions on a device differ.

    Attributes:
        std: Standard deviation of the logarithm of the same latency from session to session.
        df: Degrees of freedom that it is known from: repeated sessions, less one for each model. Infinite where it is
            assumed.
    """

    std: float = ASSUMED
    df: float = math.inf

    @property
    def text(self) -> str:
        """In words.

        Example:
            >>> Drift().text
            'sessions are assumed to differ by 4.0 %, as this device has not been measured repeatedly'
        """
        if self.df == math.inf:
            return (
                f"sessions are assumed to differ by {self.std:.1%}, as this device has not been measured repeatedly"
            ).replace("%", " %")
        return f"repeated sessions on this device differ by {self.std:.1%}".replace("%", " %")


def remember(document: dict[str, Any]) -> None:
    """Keeps the medians of a session's sure results, but not of those that have rounds of an earlier session.

    Does nothing where the cache cannot be written.

    Args:
        document: Of bench.json.
    """
    medians = {
        _key(row, _CASE): row["median_ms"]
        for row in document["results"]
        if row["status"] == "ok" and {r["session"] for r in row["rounds"]} == {document["started"]}
    }
    if not medians:
        return
    line = json.dumps({"started": document["started"], "medians": medians}, allow_nan=False)
    with contextlib.suppress(OSError, BenchError):
        path = _path(document["device"])
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def drift(device: dict[str, Any]) -> Drift:
    """How sessions on a device differ, from those that were kept.

    Args:
        device: As bench.json has it.
    """
    logs: dict[str, dict[str, float]] = {}
    for session in _sessions(device):
        for case, median in session["medians"].items():
            logs.setdefault(case, {})[session["started"]] = math.log(median)
    repeated = [np.array(list(found.values())) for found in logs.values() if len(found) > 1]
    df = sum(len(found) - 1 for found in repeated)
    if not df:
        return Drift()
    std = math.sqrt(sum(float(((found - found.mean()) ** 2).sum()) for found in repeated) / df)
    return Drift(std, df) if df >= _ENOUGH_DF or std > ASSUMED else Drift()


def _sessions(device: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The sessions kept; lines that are torn or hold no medians are passed over."""
    try:
        lines = _path(device).read_text(encoding="utf-8").splitlines()[-_LAST:]
    except (OSError, ValueError, BenchError):
        return
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            session = json.loads(line)
            if session["started"] and all(0 < ms < math.inf for ms in session["medians"].values()):
                yield session


def _path(device: dict[str, Any]) -> Path:
    return cache_dir() / "sessions" / f"{_key(device, _DEVICE)}.jsonl"


def _key(fields: dict[str, Any], names: tuple[str, ...]) -> str:
    text = json.dumps([fields.get(name) for name in names], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
