"""Writes bench.json, CSV and Paddle-Lite's text table, and reads bench.json.

Files are written to a temporary name and renamed, so that no reader meets half a file. ``docs/bench.md`` describes the
fields of bench.json.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from android_bench.errors import BenchError, BenchUsageError, DeviceMissing
from android_bench.output.plausible import check_document

Writer = Callable[[dict[str, Any], Path], Any]

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
    """Yields a temporary path beside ``path``. It replaces ``path`` on success and is removed on failure.

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
        temporary = _temporary(path)
        try:
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(error, str(path)) from None


def _temporary(path: Path) -> Path:
    """A new empty file beside ``path``."""
    handle, name = tempfile.mkstemp(prefix=".edgecls-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    return Path(name)


def _unwritable(error: OSError, where: str) -> BenchError:
    kind = DeviceMissing if error.errno in (errno.ENOSPC, errno.EDQUOT) else BenchUsageError
    return kind(f"cannot write: {error.strerror}", where=where)


def require_writable(path: str | Path, option: str) -> None:
    """Makes sure that a file can be written later, so that nobody measures for hours and loses the figures.

    Args:
        path: The file; it is not touched.
        option: The option that named it, for the error.

    Raises:
        BenchUsageError: It cannot be written, or is no ordinary file.
        DeviceMissing: The disk is full.
    """
    path, where = Path(path), f"{option} {path}"
    try:
        if path.is_dir():
            raise BenchUsageError("a folder, not a file", where=where, fix="name a file in it")
        if path.exists() and not path.is_file():
            raise BenchUsageError("not an ordinary file", where=where)
        if not path.absolute().parent.is_dir():
            raise BenchUsageError("no such folder", where=where)
        _temporary(path).unlink()
    except OSError as error:
        raise _unwritable(error, where) from None


def write_all(document: dict[str, Any], files: Iterable[tuple[Path, Writer]]) -> None:
    """Writes every file that can be written, then raises the first error of those that cannot."""
    errors: list[Exception] = []
    for path, write in files:
        try:
            write(document, path)
        except OSError as error:
            errors.append(_unwritable(error, str(path)))
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]


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
WRITERS: dict[str, Writer] = {".json": write_json, ".csv": write_csv, ".txt": write_text}


def read_json(path: str | Path) -> dict[str, Any]:
    """Reads bench.json; one of ``android_bench/1`` is given as today's schema would have it.

    Args:
        path: The file, or a folder that has one.

    Raises:
        BenchUsageError: The file is missing, is not JSON, has another schema, or figures that cannot be.
    """
    path = Path(path) / "bench.json" if Path(path).is_dir() else Path(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchUsageError(f"cannot read: {error.strerror}", where=str(path)) from None
    except (ValueError, RecursionError):
        raise BenchUsageError("not JSON", where=str(path)) from None
    found = document.get("schema") if isinstance(document, dict) else None
    if found not in (SCHEMA, _SCHEMA_1):
        raise BenchUsageError(f"schema is {found!r}, not {SCHEMA!r}", where=str(path))
    check_document(document, str(path))
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
    """Turns lists of numbers into one marked string, so that 1,024 samples do not fill 1,024 lines."""
    if isinstance(value, dict):
        return {key: _inline(item) for key, item in value.items()}
    if isinstance(value, list):
        if value and all(isinstance(item, int | float) for item in value):
            return f"\x01{json.dumps(value, allow_nan=False)}\x01"
        return [_inline(item) for item in value]
    return value
