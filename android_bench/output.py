"""bench.json and CSV: written to a temporary name, then renamed, so no reader meets half a file.

bench.json, schema ``android_bench/1`` (a field may be added within a version, never change its meaning):

- ``device``: what was measured on; ``protocol``: how (counts, seconds, rounds, limits, seed);
  ``started``: UTC time; ``complete``: false when interrupted; ``before`` and ``after``: load and clocks.
- ``results``: one entry per model and thread count. Latencies ``*_ms`` are in ms over the runs of the rounds
  used, ``n`` their number, ``ci95_ms`` the interval of the median (see ``stats``); ``init_ms`` loading and
  preparing, ``first_ms`` the first inference; ``peak_mb`` the peak of memory above what the process had before
  loading, ``peak_total_mb`` with it (MB = 2**20 bytes); ``status`` is ``ok``, ``unsure`` (figures to be
  distrusted) or ``failed`` (figures null), and ``why`` says why.
- ``results[].rounds``: every round that was measured, used or not: ``median_ms``, ``n``, ``used``, ``why`` not,
  ``foreign_cores`` (other programs' load), ``wait`` (share of the time in which our threads were ready but not
  running), ``switches`` (involuntary context switches), ``samples_ms`` (at most 1024, evenly thinned).
- On a phone: ``device`` has its SoC, clusters, ABIs and Android version; ``before`` and ``after``, also of each round,
  have temperatures, clocks, their caps, governors and battery. Its program tells no single runs: ``samples_ms`` is
  empty, a round's ``stat`` is what it told, ``p90_ms`` and ``p99_ms`` are null, ``p95_ms`` is given, and ``ci95_ms``
  comes from the rounds' medians alone. ``mask`` is the affinity mask in hex (null: not pinned), ``runtime`` which
  program it is, ``delegates`` what it says that it used, ``profile`` the operators' times where asked for.
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

SCHEMA = "android_bench/1"

COLUMNS = (
    "model", "threads", "status", "median_ms", "ci_low_ms", "ci_high_ms", "p90_ms", "p99_ms", "min_ms", "max_ms",
    "mean_ms", "std_ms", "n", "init_ms", "first_ms", "peak_mb", "peak_total_mb", "bytes", "sha256", "why",
)  # fmt: skip


@contextlib.contextmanager
def atomic(path: str | Path, mode: int = 0o644) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; it takes its place on success and is removed on failure."""
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        try:
            yield Path(name)
            Path(name).chmod(mode)
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


def read_json(path: str | Path) -> dict[str, Any]:
    """Reads bench.json.

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
    if found != SCHEMA:
        raise BenchUsageError(f"schema is {found!r}, not {SCHEMA!r}", where=str(path))
    return dict(document)


def _inline(value: Any) -> Any:
    """Lists of numbers become one marked string, so that 1024 samples do not fill 1024 lines."""
    if isinstance(value, dict):
        return {key: _inline(item) for key, item in value.items()}
    if isinstance(value, list):
        if value and all(isinstance(item, int | float) for item in value):
            return f"\x01{json.dumps(value, allow_nan=False)}\x01"
        return [_inline(item) for item in value]
    return value
