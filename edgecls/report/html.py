"""One HTML page for a run.

A page is a single file: style inside, plots as SVG, photographs as base64, no script, no network (a content security
policy in the page forbids both). Names of files and classes come from strangers; Jinja2 escapes all of them.
"""

from __future__ import annotations

import functools
import html
import re
from pathlib import Path
from typing import Any

from edgecls.files import atomic
from edgecls.report import accuracy, plots, sections
from edgecls.report.facts import Facts, RunLike, bad_images, split_counts, stage_seconds
from edgecls.report.figures import headline
from edgecls.report.units import duration
from edgecls.report.values import texts
from edgecls.text import escape, plural

_CONTENTS = (
    ("accuracy", "Accuracy"),
    ("photos", "Photographs"),
    ("training", "Training"),
    ("parity", "Parity"),
    ("latency", "Latency"),
    ("run", "This run"),
)


def write_report(run: RunLike) -> Path:
    """Write ``report.html`` from the files that the run has; the page says what is missing and what makes it.

    Returns:
        Path of the page.

    Raises:
        MissingError: No space on the disk.

    Example:
        >>> write_report(Run.find("runs/latest"))   # doctest: +SKIP
        PosixPath('runs/mv3_ssld/20260102-030405/report.html')
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
    stages = stage_seconds(facts)
    return render(
        "report.html",
        name=facts.name,
        time=facts.time,
        summary=sections.summary(facts),
        headline=headline(facts),
        contents=_CONTENTS,
        absent=sections.absent(facts),
        outdated=facts.outdated,
        evaluation=accuracy.evaluation(facts),
        set_aside=sections.set_aside(facts),
        photos=accuracy.photos(facts),
        picked=[
            {"title": title, **accuracy.picked(facts, which)}
            for which, title in (
                ("changed", "Images that int8 answers otherwise than float"),
                ("mistakes", "Wrong answers that int8 is surest of"),
            )
        ],
        curves=plots.curves(facts.metrics),
        ladder=sections.ladder(facts),
        bench=sections.bench(facts),
        stages=[{"name": name, "seconds": seconds, "text": duration(seconds)} for name, seconds in stages],
        longest=max((seconds for _, seconds in stages), default=0),
        counts=split_counts(facts.split),
        classes=classes if len(classes) <= accuracy.MATRIX_CLASSES else [],
        bad=bad_images(facts.split),
        env=sections.flat(facts.env),
        recipe_text=facts.recipe_text,
    )


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
    environment.filters |= {
        "md": _markdown,
        "code": _code,
        "python": lambda text: repr(str(text)),
        "breakable": _breakable,
        "plural": plural,
    }
    return environment


def _markdown(text: Any) -> str:
    """One line of plain text for Markdown: nothing in it is markup, HTML or a table cell's end."""
    plain = html.escape(escape(" ".join(str(text).split())), quote=False)
    return re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", plain)


def _code(text: Any) -> str:
    """One line that may stand between backticks."""
    return escape(" ".join(str(text).replace("`", "'").split()))


def _breakable(text: Any) -> Any:
    """A name that a browser may break after "_", "-" and "/", and nowhere within a word."""
    import markupsafe

    return markupsafe.Markup(re.sub(r"([_/-]+)", r"\1<wbr>", str(markupsafe.escape(text))))
