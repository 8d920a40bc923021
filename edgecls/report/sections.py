"""What each section of the page shows, as texts ready to print; the model card shows some of it too."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from edgecls.report import plots
from edgecls.report.figures import (
    MODELS,
    Facts,
    at,
    fixed,
    interval_text,
    mapping,
    megabytes,
    milliseconds,
    number,
    pair,
    percent,
    rows,
    split_counts,
    texts,
)

MATRIX_CLASSES = 12  # a larger confusion matrix is unreadable; the commonest confusions are listed instead
LISTED = 20


def part(facts: Facts, file: str, verb: str, options: str = "") -> dict[str, str]:
    """What the page says in place of a part whose file is missing: the command that makes it."""
    if verb in ("verify", "bench", "report") and not facts.run.file("export", "model_int8.tflite").exists():
        verb, options = "quantize", ""  # comes first, and makes these as well or makes them possible
    problem = facts.problems.get(file, "")
    problem = "" if problem == "missing" else problem
    return {"file": file, "problem": problem, "command": facts.command(verb, options)}


def summary(facts: Facts) -> str:
    """The run in one sentence or two."""
    source = at(facts.recipe, "data", "source")
    text = facts.model
    if facts.teacher:
        text += f" taught by {facts.teacher}"
    if source:
        text += f", on {source}"
    total = sum(count for _, count, _ in split_counts(facts.split))
    if total:
        text += f" ({total} images)"
    gated = [r for r in rows(facts.verify.get("rungs")) if "ok" in r]
    failed = sum(not r["ok"] for r in gated)
    if failed:
        text += f". {failed} of {len(gated)} parity checks failed: do not ship this export"
    elif gated:
        text += f". {len(gated)} of {len(gated)} parity checks hold"
    return text + "."


def evaluation(facts: Facts) -> dict[str, Any]:
    """Scores, confusions and classes of eval.json."""
    present, order = _evaluated(facts)
    classes = texts(facts.eval.get("classes"))
    subject = next((m for m in ("int8", "float") if m in present), next(iter(order), ""))
    small = 0 < len(classes) <= MATRIX_CLASSES
    per_class = rows(present.get(subject, {}).get("per_class"))
    if len(per_class) > LISTED:
        recall = [(number(c.get("recall")), c) for c in per_class]
        shown = [
            c for _, c in sorted(((r, c) for r, c in recall if r is not None), key=lambda p: p[0])[:LISTED]
        ]
    else:
        shown = per_class
    matrices = [(m, _matrix(present[m], len(classes))) for m in order if small]
    return {
        **part(facts, "eval.json", "eval"),
        "split": str(facts.eval.get("split", "test")),
        "count": facts.eval.get("count", "?"),
        "classes": classes,
        "top5": len(classes) > 5,  # with fewer classes it says nothing
        "subject": MODELS.get(subject, subject),
        "models": score_rows(facts),
        "matrices": [{"title": MODELS.get(m, m), "rows": _cells(x, classes)} for m, x in matrices if x],
        "confused": [] if small else _confused(_matrix(present.get(subject, {}), len(classes)), classes),
        "more_classes": len(per_class) > LISTED,
        "per_class": [
            {
                "name": c.get("class", ""),
                "count": c.get("count", "–"),
                "recall": percent(c.get("recall")),
                "precision": percent(c.get("precision")),
            }
            for c in shown
        ],
    }


def score_rows(facts: Facts) -> list[dict[str, str]]:
    """The models of eval.json with their headline scores, as texts."""
    present, order = _evaluated(facts)
    return [_scores(model, present[model]) for model in order]


def _evaluated(facts: Facts) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The entries of eval.json, and their names in reading order."""
    present = {name: mapping(scores) for name, scores in mapping(facts.eval.get("models")).items()}
    return present, [*(m for m in MODELS if m in present), *(m for m in present if m not in MODELS)]


def _scores(model: str, scores: Mapping[str, Any]) -> dict[str, str]:
    ends = pair(scores.get("balanced_accuracy_ci95"))
    interval = interval_text(ends) if ends else "–"
    figures = {key: percent(scores.get(key)) for key in ("top1", "top5")}
    balanced = percent(scores.get("balanced_accuracy"))
    return {"title": MODELS.get(model, model), "balanced": balanced, "interval": interval, **figures}


def _matrix(scores: Mapping[str, Any], size: int) -> list[list[int]]:
    """The confusion matrix if it is whole, else ``[]``."""
    matrix = scores.get("confusion")
    if not isinstance(matrix, list) or len(matrix) != size or not size:
        return []
    whole = all(isinstance(r, list) and len(r) == size and all(isinstance(n, int) for n in r) for r in matrix)
    return matrix if whole else []


def _cells(matrix: list[list[int]], classes: list[str]) -> list[dict[str, Any]]:
    return [
        {"name": name, "cells": [{"count": n, "share": n / sum(row) if sum(row) else 0.0} for n in row]}
        for name, row in zip(classes, matrix, strict=True)
    ]


def _confused(matrix: list[list[int]], classes: list[str]) -> list[dict[str, Any]]:
    pairs = [(n, i, j) for i, row in enumerate(matrix) for j, n in enumerate(row) if n and i != j]
    pairs.sort(key=lambda p: (-p[0], p[1], p[2]))
    return [{"truth": classes[i], "guess": classes[j], "count": n} for n, i, j in pairs[:LISTED]]


def photos(facts: Facts) -> list[dict[str, Any]]:
    """The photographs of predictions.json with both answers."""
    shown = []
    for photo in rows(facts.predictions.get("photos")):
        label, answers = str(photo.get("label") or ""), []
        for kind in ("float", "int8"):
            answer = mapping(photo.get(kind))
            if answer:
                right = str(answer.get("class")) == label
                answers.append(
                    {
                        "kind": kind,
                        "name": str(answer.get("class", "")),
                        "probability": percent(answer.get("probability"), 0),
                        "tone": ("" if right else "bad") if label else "",
                        "mark": (" ✓" if right else " ✗") if label else "",
                    }
                )
        image = _jpeg(photo.get("jpeg_base64"))
        shown.append(
            {
                "file": PurePath(str(photo.get("file", ""))).name,
                "label": label,
                "image": image,
                "answers": answers,
            }
        )
    return shown


def _jpeg(text: Any) -> str:
    """``text`` if it is the base64 of a JPEG, else "": nothing else may be named one in the page."""
    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        return ""
    return base64.b64encode(data).decode() if data.startswith(b"\xff\xd8\xff") else ""


def ladder(facts: Facts) -> dict[str, Any]:
    """The parity ladder and the exported files of verify.json, as texts."""
    files = []
    for name, about in mapping(facts.verify.get("files")).items():
        ops = [(str(op), int(n)) for op, n in mapping(at(about, "ops")).items() if number(n) is not None]
        ops.sort(key=lambda o: (-o[1], o[0]))
        partitions = number(at(about, "partitions"))
        files.append(
            {
                "name": name,
                "size": megabytes(at(about, "bytes")),
                "ops": [{"name": op, "count": n} for op, n in ops],
                "most": max((n for _, n in ops), default=0),
                "total": sum(n for _, n in ops),
                "partitions": None if partitions is None else int(partitions),
                "tone": "" if "int8" not in name else "good" if partitions == 1 else "warn",
                "undelegated": ", ".join(texts(at(about, "undelegated"))),
                "float_ops": ", ".join(texts(at(about, "float_ops"))) if "int8" in name else "",
                "quantized": "int8" in name and isinstance(at(about, "float_ops"), list),
            }
        )
    return {
        **part(facts, "verify.json", "verify"),
        "images": facts.verify.get("images", "?"),
        "rungs": [_rung(r) for r in rows(facts.verify.get("rungs"))],
        "files": files,
    }


def _rung(rung: Mapping[str, Any]) -> dict[str, str]:
    steps, share, limit = (number(rung.get(key)) for key in ("max_steps", "of_range", "limit"))
    absolute, unit = number(rung.get("max_abs")), ""
    if steps is not None:
        difference, unit = f"{steps:g} step{'' if steps == 1 else 's'}", f" step{'' if limit == 1 else 's'}"
    elif share is not None:
        difference, unit = f"{share:.1e} of the range", " of the range"
    else:
        difference = "–" if absolute is None else f"{absolute:.2e}"
    ok = rung.get("ok")
    mark, tone = ("measured", "soft") if ok is None else ("✓ holds", "good") if ok else ("✗ fails", "bad")
    return {
        "name": str(rung.get("name", "")),
        "difference": difference,
        "limit": "–" if limit is None else f"{limit:g}{unit}",
        "agreement": percent(rung.get("top1_agreement")),
        "mark": mark,
        "tone": tone,
    }


def bench(facts: Facts) -> dict[str, Any]:
    """Device, protocol, table and plots of bench.json."""
    scores = {f"model_{kind}.tflite": facts.balanced(kind) for kind in ("fp32", "fp16", "int8")}
    drawn = (
        plots.latency(facts.results()),
        plots.against_latency(facts.results(), scores, "balanced accuracy, %"),
        plots.sizes(facts.results()),
    )
    return {
        **part(facts, "bench.json", "bench", " --device host --threads 1,2"),
        "device": device(facts),
        "protocol": protocol_text(facts.bench.get("protocol")),
        "rows": bench_rows(facts),
        "plots": [plot for plot in drawn if plot],
    }


_PROTOCOL = {"warmup": "warm-up runs", "runs": "measured runs a round", "rounds": "rounds"}


def protocol_text(protocol: Any) -> str:
    """How often each figure was measured, in words."""
    found = mapping(protocol)
    said = [f"{found[key]} {name}" for key, name in _PROTOCOL.items() if key in found]
    return f"Each figure: {', '.join(said)}." if said else ""


def bench_rows(facts: Facts) -> list[dict[str, str]]:
    """The rows of bench.json, as texts."""
    return [bench_row(row) for row in facts.results()]


def bench_row(row: Mapping[str, Any]) -> dict[str, str]:
    """A result of bench.json, as texts."""
    status = str(row.get("status", ""))
    ends = pair(row.get("ci95_ms"))
    peak = number(row.get("peak_mib"))
    return {
        "model": str(row.get("model", "")),
        "threads": str(row.get("threads", "–")),
        "median": milliseconds(row.get("median_ms")),
        "interval": f"{fixed(ends[0])} – {fixed(ends[1])}" if ends else "–",
        "p90": milliseconds(row.get("p90_ms")),
        "min": milliseconds(row.get("min_ms")),
        "n": str(row.get("n", "–")),
        "init": milliseconds(row.get("init_ms")),
        "peak": "–" if peak is None else f"{peak:.1f} MiB",
        "bytes": megabytes(row.get("bytes")),
        "status": status,
        "tone": {"ok": "good", "unsure": "warn"}.get(status, "bad"),
        "why": str(row.get("why") or ""),
    }


def device(facts: Facts) -> str:
    """What was measured on, in words."""
    return device_text(facts.bench.get("device"))


def device_text(about: Any) -> str:
    """The device of a bench.json, in words."""
    found = mapping(about)
    said = [str(found[key]) for key in ("name", "cpu") if found.get(key)]
    if found.get("cores"):
        said.append(f"{found['cores']} cores")
    return ", ".join(dict.fromkeys(said)) or str(found.get("kind") or "–")


def flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, text) pairs."""
    pairs: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            pairs += flat(value, f"{prefix}{key}.")
        else:
            pairs.append(
                (f"{prefix}{key}", ", ".join(texts(value)) if isinstance(value, list) else str(value))
            )
    return pairs
