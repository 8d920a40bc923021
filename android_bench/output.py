"""bench.json, CSV and Paddle-Lite's text table: written to a temporary name, then renamed, so no reader meets half a
file. The schema of bench.json is described in ``docs/bench.md``.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from android_bench.errors import BenchUsageError, DeviceMissing

SCHEMA = "android_bench/2"
_SCHEMA_1 = "android_bench/1"
_RENAMED = {"peak_mb": "peak_mib", "peak_total_mb": "peak_total_mib", "memory_mb": "memory_mib"}

COLUMNS = (
    "model", "threads", "status", "median_ms", "ci_low_ms", "ci_high_ms", "p90_ms", "p99_ms", "min_ms", "max_ms",
    "mean_ms", "std_ms", "n", "init_ms", "first_ms", "peak_mib", "peak_total_mib", "bytes", "sha256", "p95_ms",
    "energy_mj", "network", "top1", "published_sd855_ms", "why",
)  # fmt: skip


@contextlib.contextmanager
def atomic(path: str | Path, *, parents: bool = False) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; it takes its place on success and is removed on failure.

    Args:
        path: The file to write.
        parents: Make the folders that are missing.

    Raises:
        BenchUsageError: It cannot be written.
        DeviceMissing: The disk is full.
    """
    path = Path(path)
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        try:
            yield Path(name)
            Path(name).chmod(0o644)
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        kind = DeviceMissing if error.errno in (errno.ENOSPC, errno.EDQUOT) else BenchUsageError
        raise kind(f"cannot write: {error.strerror}", where=str(path)) from None


def to_json(document: dict[str, Any]) -> str:
    """The document as text: strict JSON (no NaN), one result field a line, samples on one line."""
    text = json.dumps(_inline(document), indent=1, allow_nan=False)
    return text.replace('"\\u0001', "").replace('\\u0001"', "") + "\n"


def write_json(document: dict[str, Any], path: str | Path) -> None:
    """Writes bench.json. Raises BenchUsageError where it cannot, DeviceMissing when the disk is full."""
    with atomic(path) as temporary:
        temporary.write_text(to_json(document), encoding="utf-8")


def to_csv(document: dict[str, Any]) -> str:
    """One line per model and thread count, units in the header, empty where there is no figure."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for result in document["results"]:
        low, high = result["ci95_ms"] or (None, None)
        writer.writerow({**result, "ci_low_ms": low, "ci_high_ms": high})
    return text.getvalue()


def write_csv(document: dict[str, Any], path: str | Path) -> None:
    """Writes the results as CSV. Raises as ``write_json``."""
    with atomic(path) as temporary:
        temporary.write_text(to_csv(document), encoding="utf-8")


def to_text(document: dict[str, Any]) -> str:
    """The layout of Paddle-Lite's ``result_armv8.txt``: a block for each thread count, a line for each model.

    Unlike there, the unit is named (ms), the minimum is the minimum, and the number of runs is given.
    """
    device, protocol = document["device"], document["protocol"]
    lines = [f"TFLite Benchmark, {device['name']} ({device.get('cpu') or 'unknown'}), latency in ms"]
    results = document["results"]
    for threads in dict.fromkeys(result["threads"] for result in results):
        lines.append(f"Threads={threads} Warmup={protocol['warmup']} Repeats={protocol['runs']}")
        lines += [_text_line(result) for result in results if result["threads"] == threads]
        lines.append("")
    return "\n".join(lines)


def _text_line(result: dict[str, Any]) -> str:
    name = f"{result['model'].removesuffix('.tflite'):<37} "
    if result["status"] == "failed":
        return f"{name}failed: {result['why']}"
    low, high, mean = (result[f"{key}_ms"] for key in ("min", "max", "mean"))
    unsure = f"    unsure: {result['why']}" if result["status"] == "unsure" else ""
    return (
        f"{name}min = {low:<11.5f} max = {high:<11.5f} average = {mean:<11.5f} runs = {result['n']}{unsure}"
    )


def write_text(document: dict[str, Any], path: str | Path) -> None:
    """Writes the results as ``to_text`` has them. Raises as ``write_json``."""
    with atomic(path) as temporary:
        temporary.write_text(to_text(document), encoding="utf-8")


#: Writers by what a file's name ends with.
WRITERS = {".json": write_json, ".csv": write_csv, ".txt": write_text}


def read_json(path: str | Path) -> dict[str, Any]:
    """Reads bench.json; one of ``android_bench/1`` is given as today's schema would have it.

    Raises:
        BenchUsageError: The file is missing, is not JSON, or has another schema.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchUsageError(f"cannot read: {error.strerror}", where=str(path)) from None
    except ValueError:
        raise BenchUsageError("not JSON", where=str(path)) from None
    found = document.get("schema") if isinstance(document, dict) else None
    if found not in (SCHEMA, _SCHEMA_1):
        raise BenchUsageError(f"schema is {found!r}, not {SCHEMA!r}", where=str(path))
    return document if found == SCHEMA else _upgraded(document)


def _upgraded(document: dict[str, Any]) -> dict[str, Any]:
    """A document of the first schema, which called MiB "MB" and gave an interval to a single round."""

    def renamed(row: dict[str, Any]) -> dict[str, Any]:
        return {_RENAMED.get(key, key): value for key, value in row.items()}

    results = [renamed(result) for result in document.get("results", [])]
    for result in results:
        if sum(r["used"] for r in result.get("rounds", [])) < 2:
            result["ci95_ms"] = None
    return {**document, "schema": SCHEMA, "device": renamed(document.get("device", {})), "results": results}


def _inline(value: Any) -> Any:
    """Lists of numbers become one marked string, so that 1024 samples do not fill 1024 lines."""
    if isinstance(value, dict):
        return {key: _inline(item) for key, item in value.items()}
    if isinstance(value, list):
        if value and all(isinstance(item, int | float) for item in value):
            return f"\x01{json.dumps(value, allow_nan=False)}\x01"
        return [_inline(item) for item in value]
    return value
