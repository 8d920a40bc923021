"""Reads the result files of LiteRT's benchmark tools: a protobuf of the one in C++, JSON of its twin in Python.

They say what the output says, without the single runs: ``benchmark_model --result_file_path=FILE`` writes a
``BenchmarkResult`` (tensorflow/lite/tools/benchmark/proto/benchmark_result.proto), and
``python -m ai_edge_litert.tools.benchmark_litert_model --result_json FILE`` an object with ``latency``.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from android_bench.output.figures import Output, ParseError, summary_output

_RUNS = ("min_ms", "max_ms", "mean_ms", "std_ms", "p5_ms", "median_ms", "p95_ms")
_LATENCY = {1: "mean_ms", 2: "min_ms", 3: "max_ms", 4: "std_ms", 5: "median_ms", 6: "p5_ms", 7: "p95_ms", 8: "init_ms",
            9: "first_ms", 10: "warmup_ms"}  # fmt: skip
_MEMORY = {1: "init_kb", 2: "overall_kb", 3: "peak_mib"}
_COUNTS = {2: "count", 3: "warmup_count"}
_PARTS = {2: _LATENCY, 3: _MEMORY, 4: _COUNTS}  # fields of BenchmarkResult that are messages
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_TWIN = {"avg_ms": "mean_ms", "warmup_first_ms": "first_ms", "warmup_avg_ms": "warmup_ms", "num_runs": "count",
         "num_warmup_runs": "warmup_count"}  # fmt: skip


def read_result(data: bytes) -> Output:
    """The figures of a result file of either tool.

    Args:
        data: The content of the file.

    Raises:
        ParseError: It is no such file, is cut off, or its figures cannot be.
    """
    return _of_json(data) if data.lstrip()[:1] == b"{" else _of_protobuf(data)


def read_result_file(path: str | Path) -> Output:
    """``read_result`` of a file. Raises ParseError, and OSError when it cannot be read."""
    return read_result(Path(path).read_bytes())


def _of_json(data: bytes) -> Output:
    try:
        latency = json.loads(data)["latency"]
        figures = {_TWIN.get(name, name): value for name, value in latency.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ParseError("the result file is torn, or no result of LiteRT's benchmark") from None
    return _output("python", figures, step_ms=0.01)  # it rounds to that


def _of_protobuf(data: bytes) -> Output:
    figures: dict[str, Any] = {}
    try:
        for number, part in _fields(data):
            names = _PARTS.get(number)
            if names and isinstance(part, bytes):
                figures |= {names[field]: value for field, value in _fields(part) if field in names}
    except (IndexError, struct.error, ValueError):
        raise ParseError("the result file is torn, or no result of LiteRT's benchmark") from None
    return _output("litert", figures, step_ms=0.001)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Field numbers and values of a message in protobuf's wire format. Raises IndexError or ValueError when it is torn."""
    at = 0

    def varint() -> int:
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value
            if shift > 63:
                raise ValueError("a varint without end")

    while at < len(data):
        number, kind = divmod(varint(), 8)
        if kind == _VARINT:
            yield number, varint()
            continue
        if kind not in (_FIXED64, _BYTES, _FIXED32):
            raise ValueError(f"wire type {kind}")
        size = varint() if kind == _BYTES else 8 if kind == _FIXED64 else 4
        raw = data[at : at + size]
        if len(raw) < size:
            raise ValueError("the message is cut off")
        at += size
        yield number, raw if kind == _BYTES else struct.unpack("<d" if kind == _FIXED64 else "<f", raw)[0]


def _output(kind: str, figures: dict[str, Any], *, step_ms: float) -> Output:
    """The output of a tool that tells these figures. Raises ParseError when they are not all there, or cannot be."""
    wanted = (*_RUNS, "count", "first_ms", "init_ms", "warmup_ms", "warmup_count")
    for name in wanted:
        value = figures.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ParseError(f"the result file has no {name}")
    memory = {
        "init_delta_mib": figures["init_kb"] / 1024 if "init_kb" in figures else None,
        "overall_delta_mib": figures["overall_kb"] / 1024 if "overall_kb" in figures else None,
        "peak_mib": figures.get("peak_mib"),
    }
    return summary_output(
        kind,
        {name: round(figures[name], 6) for name in _RUNS},
        figures["count"],
        round(figures["first_ms"], 6),
        round(figures["init_ms"], 6),
        round(figures["warmup_ms"], 6),
        figures["warmup_count"],
        step_ms=step_ms,
        memory=memory,
    )
