"""One HTML page for a bench.json of any number of networks: table, latency by threads, accuracy and size against it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from android_bench.output.report import kept_note
from edgecls.report import plots, sections
from edgecls.report.html import render, write_page
from edgecls.report.units import milliseconds, percent
from edgecls.report.values import at, number, rows, texts

_BARS = 40  # with more files the bars say nothing


def write_bench(document: Mapping[str, Any], path: str | Path) -> Path:
    """Write the page of a bench.json document.

    Returns:
        Path of the page.

    Raises:
        MissingError: No space on the disk.
    """
    return write_page(Path(path), bench_page(document))


def bench_page(document: Mapping[str, Any]) -> str:
    """The page as HTML."""
    results = rows(document.get("results"))
    table = [sections.bench_row(row) | _published(row) for row in results]
    files = list(dict.fromkeys(row.get("model") for row in results))
    drawn = [
        plots.latency(results),
        plots.against_latency(
            results, {str(r.get("model")): number(r.get("top1")) for r in results}, "published top-1, %"
        ),
        plots.sizes(results) if len(files) <= _BARS else "",
    ]
    return render(
        "bench.html",
        device=sections.device_text(at(document, "device")),
        protocol=sections.protocol_text(at(document, "protocol")),
        started=str(document.get("started") or ""),
        complete=bool(document.get("complete", True)),
        rows=table,
        notes=[*texts(at(document, "device", "notes")), *_kept(document, results)],
        published=any(row["published"] != "–" for row in table),
        plots=[plot for plot in drawn if plot],
    )


def _kept(document: Mapping[str, Any], results: list[Any]) -> list[str]:
    return kept_note({"started": str(document.get("started") or ""), "results": results})


def _published(row: Mapping[str, Any]) -> dict[str, str]:
    return {"published": milliseconds(row.get("published_sd855_ms")), "top1": percent(row.get("top1"))}
