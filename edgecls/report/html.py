"""One HTML page for a run, and one for several runs side by side.

A page is a single file: style inside, plots as SVG, photographs as base64, no script, no network (a content security
policy in the page forbids both). Names of files and classes come from strangers; Jinja2 escapes all of them.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgecls.report import plots, sections
from edgecls.report.figures import (
    Facts,
    RunLike,
    bad_images,
    duration,
    headline,
    milliseconds,
    split_counts,
    texts,
)
from edgecls.run import atomic

_CONTENTS = (
    ("accuracy", "Accuracy"),
    ("photos", "Photographs"),
    ("training", "Training"),
    ("parity", "Parity"),
    ("latency", "Latency"),
    ("run", "This run"),
)


def write_report(run: RunLike) -> Path:
    """Write ``report.html`` from whatever files the run has; the page says what is missing and what makes it.

    Returns:
        Path of the page.

    Raises:
        MissingError: No space on the disk.
    """
    return write_page(run.file("report.html"), page(run))


def write_page(path: Path, text: str) -> Path:
    """Write a text whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")
    return path


def page(run: RunLike) -> str:
    """The report of one run as HTML."""
    facts = Facts(run)
    classes = texts(facts.split.get("classes"))
    longest = max((s["seconds"] for s in facts.stages), default=0)
    return render(
        "report.html",
        name=facts.name,
        time=facts.time,
        summary=sections.summary(facts),
        headline=headline(facts),
        contents=_CONTENTS,
        evaluation=sections.evaluation(facts),
        photos=sections.photos(facts),
        predictions=sections.part(facts, "predictions.json", "report"),
        curves=plots.curves(facts.metrics),
        metrics={**sections.part(facts, "metrics.jsonl", "train"), "command": "edgecls train RECIPE"},
        ladder=sections.ladder(facts),
        bench=sections.bench(facts),
        stages=[{**s, "text": duration(s["seconds"])} for s in facts.stages],
        longest=longest,
        counts=split_counts(facts.split),
        classes=classes if len(classes) <= sections.MATRIX_CLASSES else [],
        bad=bad_images(facts.split),
        env=sections.flat(facts.env),
        recipe_text=facts.recipe_text,
    )


def compare(runs: Sequence[RunLike]) -> str:
    """Several runs as one HTML table: a column a run, a row a figure."""
    facts = [Facts(run) for run in runs]
    table: list[tuple[str, list[str]]] = [
        ("network", [f.model for f in facts]),
        ("teacher", [str(f.teacher or "–") for f in facts]),
    ]
    figures = [{g.label: g.text for g in headline(f)} for f in facts]
    for label in dict.fromkeys(name for own in figures for name in own):
        table.append((label, [own.get(label, "–") for own in figures]))
    table += [
        (f"Median latency, {p}, one thread", [milliseconds(f.result(p).get("median_ms")) for f in facts])
        for p in ("fp32", "int8")
    ]
    table.append(("Device", [sections.device(f) for f in facts]))
    table.append(
        ("Time of all stages", [duration(sum(s["seconds"] for s in f.stages) or None) for f in facts])
    )
    columns = [f"{f.name} {f.time}" for f in facts]
    return render("compare.html", columns=columns, rows=[{"label": k, "texts": v} for k, v in table])


def render(template: str, **context: Any) -> str:
    """Fill a template of this package; ``.html`` ones escape every value."""
    return _templates().get_template(template).render(**context)


@functools.cache
def _templates() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=jinja2.select_autoescape(("html",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"md": _markdown, "code": _code, "python": lambda text: repr(str(text))}
    return environment


def _markdown(text: Any) -> str:
    """One line of plain text for Markdown: nothing in it is markup, HTML or a table cell's end."""
    plain = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", plain)


def _code(text: Any) -> str:
    """One line that may stand between backticks."""
    return " ".join(str(text).replace("`", "'").split())
