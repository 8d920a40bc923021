"""Several runs side by side: figures, paired tests on the images that they share, and what their recipes differ in."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from edgecls.metrics import paired
from edgecls.report import sections
from edgecls.report.facts import MODELS, Facts, RunLike, stage_seconds
from edgecls.report.figures import headline, median
from edgecls.report.html import render, write_page
from edgecls.report.units import duration, milliseconds, percent, points
from edgecls.report.values import number, texts
from edgecls.text import plural

SURE = 0.05  # a difference that chance makes more often is not called one


def comparison(runs: Sequence[RunLike]) -> dict[str, Any]:
    """What there is to say of several runs.

    Args:
        runs: The first is what the others are tested against.

    Returns:
        ``{"schema": "edgecls.compare/1", "runs", "same_classes", "figures", "paired", "recipe"}``: ``runs`` has
        ``path``, ``name``, ``time`` and ``title`` of each; ``figures`` rows of ``{"label", "texts", "details"}``;
        ``paired`` the results of ``metrics.paired`` of each model of each other run with its ``run`` (a position),
        ``model`` and, where it cannot be tested, only ``why``; ``recipe`` the keys that differ as ``{"key",
        "values"}``.

    Example:
        >>> comparison([Run("runs/a/1"), Run("runs/b/1")])["recipe"]   # doctest: +SKIP
        [{'key': 'train.epochs', 'values': ['40', '80']}]
    """
    facts = [Facts(run) for run in runs]
    return {
        "schema": "edgecls.compare/1",
        "runs": [
            {"path": str(f.run.path), "name": f.name, "time": f.time, "title": title}
            for f, title in zip(facts, _titles(facts), strict=True)
        ],
        "same_classes": len({tuple(c) for f in facts if (c := _classes(f))}) < 2,
        "figures": _figures(facts),
        "paired": [
            {"run": i, "model": model, **_paired(facts[0], facts[i], model)}
            for i in range(1, len(facts))
            for model in ("float", "int8")
        ],
        "recipe": _differences(facts),
    }


def compare(runs: Sequence[RunLike]) -> str:
    """Several runs as one HTML page: a column a run, a row a figure.

    Example:
        >>> Path("compare.html").write_text(compare([Run("runs/a/1"), Run("runs/b/1")]))   # doctest: +SKIP
    """
    document = comparison(runs)
    columns = [run["title"] for run in document["runs"]]
    return render(
        "compare.html",
        columns=columns,
        rows=document["figures"],
        same_classes=document["same_classes"],
        first=columns[0],
        paired=[paired_texts(test) | {"run": columns[test["run"]]} for test in document["paired"]],
        recipe=document["recipe"],
    )


def write_comparison(runs: Sequence[RunLike], path: str | Path) -> dict[str, Any]:
    """Write the page of ``compare`` and return the document of ``comparison`` with its path as ``report``.

    Raises:
        MissingError: No space on the disk.
    """
    return comparison(runs) | {"report": str(write_page(Path(path), compare(runs)))}


def paired_texts(test: Mapping[str, Any]) -> dict[str, str]:
    """One paired test as texts: ``model``, ``difference``, ``counts``, ``p`` and ``verdict``."""
    model = MODELS.get(test["model"], test["model"])
    if "why" in test:
        return {"model": model, "difference": "–", "counts": "–", "p": "–", "verdict": test["why"]}
    low, high = test["difference_ci95"]
    sure = test["p"] < SURE
    return {
        "model": model,
        "difference": f"{points(100 * test['difference'])} ({points(100 * low)} to {points(100 * high)})",
        "counts": f"{test['second_only']} won, {test['first_only']} lost of {plural(test['images'], 'image')}",
        "p": f"{test['p']:.2g}",
        "verdict": ("better" if test["difference"] > 0 else "worse") if sure else "no sure difference",
    }


def _titles(facts: Sequence[Facts]) -> list[str]:
    """Name and time of each run; of those with the same, the path, too."""
    titles = [f"{f.name} {f.time}" for f in facts]
    return [
        title if titles.count(title) == 1 else f"{title} ({f.run.path})"
        for title, f in zip(titles, facts, strict=True)
    ]


def _classes(facts: Facts) -> list[str]:
    return texts(facts.eval.get("classes"))


def _figures(facts: Sequence[Facts]) -> list[dict[str, Any]]:
    table: list[tuple[str, list[str], list[str]]] = []

    def add(label: str, cells: list[str], details: list[str] | None = None) -> None:
        table.append((label, cells, details or [""] * len(cells)))

    add("network", [f.model for f in facts])
    add("teacher", [str(f.teacher or "–") for f in facts])
    add("classes", [str(len(_classes(f)) or "–") for f in facts])
    figures = [{figure.label: figure for figure in headline(f)} for f in facts]
    for label in dict.fromkeys(label for by_label in figures for label in by_label):
        found = [by_label.get(label) for by_label in figures]
        add(label, [f.text if f else "–" for f in found], [f.detail if f else "" for f in found])
    for model in ("float", "int8"):
        add(f"Calibration error, {MODELS[model]}", [percent(f.scores(model).get("ece")) for f in facts])
    for precision in ("fp32", "int8"):
        add(f"Median latency, {precision}", [_median_text(f, precision) for f in facts])
    add("Device", [sections.device(f) for f in facts])
    add("Time of all stages", [duration(sum(s for _, s in stage_seconds(f)) or None) for f in facts])
    return [{"label": label, "texts": cells, "details": details} for label, cells, details in table]


def _median_text(facts: Facts, precision: str) -> str:
    found = median(facts, precision)
    return "–" if found is None else f"{milliseconds(found[0])}, {plural(found[1], 'thread')}"


def _paired(first: Facts, second: Facts, model: str) -> dict[str, Any]:
    """The test of one model of two runs, or why there is none."""
    if not first.scores(model) or not second.scores(model):
        return {"why": "not scored in both runs"}
    if first.eval.get("split_sha256") != second.eval.get("split_sha256"):
        return {"why": "scored on other images"}
    right = [_right(facts, model) for facts in (first, second)]
    if right[0] is None or right[1] is None:
        return {"why": "the answers are not kept; edgecls quantize RUN keeps them"}
    return paired(right[0], right[1])


def _right(facts: Facts, model: str) -> np.ndarray | None:
    """Whether a model is right on each test image, [N]; None where its answers are not those of its scores."""
    with (
        suppress(OSError, ValueError, KeyError, zipfile.BadZipFile),
        np.load(facts.run.file("answers.npz")) as kept,
    ):
        right = kept[f"{model}_class"] == kept["labels"]
        top1 = number(facts.scores(model).get("top1"))
        if top1 is not None and len(right) == facts.eval.get("count") and abs(right.mean() - top1) < 1e-6:
            return np.asarray(right)
    return None


def _differences(facts: Sequence[Facts]) -> list[dict[str, Any]]:
    """Keys of the recipes whose values are not the same in all runs."""
    recipes = [dict(sections.flat(f.recipe)) for f in facts]
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    rows = [{"key": key, "values": [recipe.get(key, "–") for recipe in recipes]} for key in keys]
    return [row for row in rows if len(set(row["values"])) > 1]
