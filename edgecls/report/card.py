"""The model card of a run, in Markdown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from edgecls.report.figures import (
    MODELS,
    Facts,
    RunLike,
    at,
    bad_images,
    mapping,
    number,
    percent,
    points,
    rows,
    split_counts,
    texts,
)
from edgecls.report.html import render, write_page
from edgecls.report.sections import bench_rows, device, ladder, score_rows

_LICENCES = {
    "elpv": "CC BY-NC-SA 4.0 (ELPV solar cell photographs): no commercial use, credit the authors, share alike. "
    "Whoever publishes a model trained on them should consider whether these terms reach it.",
}


def write_card(run: RunLike) -> Path:
    """Write ``card.md``; parts the run does not have yet name the command that makes them.

    Returns:
        Path of the card.

    Raises:
        MissingError: No space on the disk.
    """
    return write_page(run.file("card.md"), card(run))


def card(run: RunLike) -> str:
    """The model card of a run as Markdown."""
    facts = Facts(run)
    source = str(at(facts.recipe, "data", "source") or "unknown")
    checked = ladder(facts)
    text = render(
        "card.md",
        name=facts.name,
        time=facts.time,
        path=facts.command_path,
        model=facts.model,
        teacher=facts.teacher,
        commit=str(facts.env.get("commit") or "")[:12],
        classes=texts(facts.split.get("classes")) or texts(facts.eval.get("classes")),
        source=source,
        licence=_LICENCES.get(source, "that of your own images; state it here."),
        counts=split_counts(facts.split),
        bad=bad_images(facts.split),
        training=_training(facts),
        scores=score_rows(facts),
        files=[_file(f) for f in checked["files"]],
        rungs=checked["rungs"],
        change=points(None if facts.drop() is None else -(facts.drop() or 0.0)),
        latencies=bench_rows(facts),
        device=device(facts),
        worst=_worst(facts),
        commands={
            "train": "edgecls train RECIPE",
            "eval": facts.command("eval"),
            "quantize": facts.command("quantize"),
            "bench": facts.command("bench", " --device host --threads 1,2"),
        },
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _training(facts: Facts) -> list[str]:
    """What was trained, from the resolved recipe."""
    recipe, lines = facts.recipe, []
    phases = (
        (
            "Teacher",
            at(recipe, "teacher", "name"),
            at(recipe, "teacher", "weights"),
            at(recipe, "teacher", "train"),
        ),
        ("Student", at(recipe, "model", "name"), at(recipe, "model", "weights"), at(recipe, "train")),
        (
            "Quantization-aware training",
            at(recipe, "model", "name"),
            "the float student",
            at(recipe, "quantize", "train"),
        ),
    )
    for title, network, weights, train in phases:
        if not network:
            continue
        start = Path(str(weights)).name if weights else "random values"
        line = f"{title}: {network}, starting from {start}"
        if train:
            line += (
                f"; {at(train, 'epochs')} epochs, batch {at(train, 'batch_size')}, "
                f"{at(train, 'optimizer', 'name')} at {at(train, 'optimizer', 'lr')}, "
                f"{at(train, 'schedule', 'name')} schedule"
            )
        lines.append(line)
    if mapping(recipe.get("distill")):
        lines.append(
            f"Distillation: {at(recipe, 'distill', 'loss')} loss between teacher and student, "
            f"weight {at(recipe, 'distill', 'weight')}, labels {at(recipe, 'distill', 'hard_weight')}"
        )
    if lines:
        lines.append(f"Seed {recipe.get('seed', 0)}; the whole recipe is recipe.yaml")
    return lines


def _file(about: dict[str, Any]) -> dict[str, Any]:
    quantized = about["quantized"]
    return {
        "name": about["name"],
        "size": about["size"],
        "partitions": "–" if about["partitions"] is None else about["partitions"],
        "float_ops": (len(about["float_ops"].split(", ")) if about["float_ops"] else 0)
        if quantized
        else "all",
    }


def _worst(facts: Facts) -> dict[str, Any] | None:
    """The class with the lowest recall of the model that ships."""
    for model in ("int8", "float"):
        known = [c for c in rows(facts.scores(model).get("per_class")) if number(c.get("recall")) is not None]
        if known:
            lowest = min(known, key=lambda c: c["recall"])
            return {
                "name": str(lowest.get("class", "")),
                "recall": percent(lowest["recall"]),
                "count": lowest.get("count", "?"),
                "model": MODELS[model],
            }
    return None
