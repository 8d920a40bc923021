"""The operator profile: a table of times in what the programs print, and in LiteRT's own summary."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

PROFILE = "Operator-wise Profiling Info"


@dataclass(frozen=True)
class Operator:
    """A row of the operator profile: time in ms, share of the total in percent, memory in KB."""

    type: str
    name: str
    avg_ms: float
    percent: float
    memory_kb: float
    calls: int


def profile_json(layers: Sequence[Operator]) -> dict[str, Any]:
    """Operators for bench.json: ``by_type_ms``, over one inference and the costliest first, and ``layers``."""
    total: dict[str, float] = {}
    for layer in layers:
        total[layer.type] = total.get(layer.type, 0.0) + layer.avg_ms
    by_type = {kind: round(ms, 6) for kind, ms in sorted(total.items(), key=lambda item: -item[1])}
    return {"by_type_ms": by_type, "layers": [dataclasses.asdict(layer) for layer in layers]}


def parse_profile(text: str) -> tuple[tuple[Operator, ...], tuple[str, ...]]:
    """The operators of LiteRT's profile table, and a note when the table is torn.

    The table is that of ``benchmark_model`` with blanks instead of tabs: a column ends where its header ends.
    """
    lines, ends = [PROFILE], list[int]()
    for line in text.splitlines():
        if "[node type]" in line:
            ends = [found.end() for found in re.finditer(r"\[[^]]+\]", line)]
        ends = ends if line.strip() else []
        if ends:
            columns = itertools.pairwise([0, *ends[:-1], len(line)])
            line = "\t".join(["", *(line[begin:end] for begin, end in columns)])
        lines.append(line)
    return operators(lines)


def operators(lines: list[str]) -> tuple[tuple[Operator, ...], tuple[str, ...]]:
    """The operators of the measured runs in their order. A torn table gives none, and a note."""
    begin = next((i for i, line in enumerate(lines) if PROFILE in line), None)
    if begin is None:
        return (), ()
    rows = list(_rows(lines[begin:]))
    executed = next(
        (m for line in lines[begin:] if (m := re.match(r"Number of nodes executed: (\d+)", line))), None
    )
    try:
        if executed is None or int(executed[1]) != len(rows):
            raise ValueError
        return tuple(_operator(row) for row in rows), ()
    except (KeyError, ValueError):
        return (), ("the operator profile is torn and left out",)


def _rows(lines: list[str]) -> Iterator[dict[str, str]]:
    """Rows of the first table by the names in its header; columns come and go with the versions."""
    header: list[str] = []
    for line in lines:
        cells = [cell.strip() for cell in line.split("\t")[1:]]
        if not header:
            if cells and cells[0].lower() == "[node type]":
                header = [cell.strip("[]").lower() for cell in cells]
        elif len(cells) == len(header):
            yield dict(zip(header, cells, strict=True))
        else:
            return


def _operator(row: dict[str, str]) -> Operator:
    return Operator(
        type=row["node type"],
        name=row["name"],
        avg_ms=float(row["avg ms"]),
        percent=float(row["%"].rstrip("%")),
        memory_kb=float(row["mem kb"]),
        calls=int(row["times called"]),
    )
