"""The accuracy section: scores of each model, confusions, classes, and the photographs that int8 changed."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from edgecls.report.facts import MODELS, Facts
from edgecls.report.units import fixed, interval_text, percent
from edgecls.report.values import mapping, number, pair, rows, texts
from edgecls.text import plural

MATRIX_CLASSES = 12  # a larger confusion matrix is unreadable; the commonest confusions are listed instead
LISTED = 20
TOP5_CLASSES = 6  # with fewer classes top-5 is 100 % whatever the network answers

Matrix = list[list[int]]


def evaluation(facts: Facts) -> dict[str, Any]:
    """Scores, confusions and classes of eval.json."""
    models = _models(facts)
    classes = texts(facts.eval.get("classes"))
    subject = next((m for m in ("int8", "float") if m in models), next(iter(models), ""))
    drawn = 0 < len(classes) <= MATRIX_CLASSES
    matrices = [(m, _matrix(scores, len(classes))) for m, scores in models.items() if drawn]
    per_class = rows(models.get(subject, {}).get("per_class"))
    return {
        "split": str(facts.eval.get("split", "test")),
        "count": facts.eval.get("count", "?"),
        "classes": classes,
        "absent": sum(number(entry.get("count")) == 0 for entry in per_class),
        "top5": len(classes) >= TOP5_CLASSES,
        "subject": MODELS.get(subject, subject),
        "models": score_rows(facts),
        "warnings": facts.warnings(),
        "matrices": [{"title": MODELS.get(m, m), "rows": _cells(x, classes)} for m, x in matrices if x],
        "confused": [] if drawn else _confused(models.get(subject, {}), classes),
        "more_classes": len(per_class) > LISTED,
        "per_class": [_class_row(entry) for entry in _worst(per_class)],
    }


def score_rows(facts: Facts) -> list[dict[str, str]]:
    """The models of eval.json with their headline scores, as texts."""
    return [
        {
            "title": MODELS.get(model, model),
            "balanced": percent(scores.get("balanced_accuracy")),
            "interval": interval_text(pair(scores.get("balanced_accuracy_ci95"))),
            "top1": percent(scores.get("top1")),
            "top1_interval": interval_text(pair(scores.get("top1_ci95"))),
            "top5": percent(scores.get("top5")),
            "ece": percent(scores.get("ece")),
        }
        for model, scores in _models(facts).items()
    ]


def worst_class(facts: Facts) -> dict[str, Any] | None:
    """The class with the lowest recall of the model that ships, or None without scores."""
    for model in ("int8", "float"):
        entries = [
            c for c in rows(facts.scores(model).get("per_class")) if number(c.get("recall")) is not None
        ]
        if entries:
            return _class_row(min(entries, key=lambda c: c["recall"])) | {"model": MODELS[model]}
    return None


def _models(facts: Facts) -> dict[str, dict[str, Any]]:
    """The entries of eval.json in reading order."""
    present = {name: mapping(scores) for name, scores in mapping(facts.eval.get("models")).items()}
    return {m: present[m] for m in [*(m for m in MODELS if m in present), *present]}


def _class_row(entry: Mapping[str, Any]) -> dict[str, Any]:
    count = number(entry.get("count"))
    return {
        "name": str(entry.get("class", "")),
        "count": fixed(count, 0),
        "images": "– images" if count is None else plural(int(count), "image"),
        "recall": percent(entry.get("recall")),
        "interval": interval_text(pair(entry.get("recall_ci95"))),
        "precision": percent(entry.get("precision")),
    }


def _worst(per_class: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All classes, or of many those with the lowest recall."""
    if len(per_class) <= LISTED:
        return per_class
    with_recall = [c for c in per_class if number(c.get("recall")) is not None]
    return sorted(with_recall, key=lambda c: c["recall"])[:LISTED]


def _matrix(scores: Mapping[str, Any], size: int) -> Matrix:
    """The confusion matrix if it is whole, else ``[]``."""
    matrix = scores.get("confusion")
    if not isinstance(matrix, list) or len(matrix) != size or not size:
        return []
    whole = all(isinstance(r, list) and len(r) == size and all(isinstance(n, int) for n in r) for r in matrix)
    return matrix if whole else []


def _cells(matrix: Matrix, classes: list[str]) -> list[dict[str, Any]]:
    return [
        {"name": name, "cells": [{"count": n, "share": n / sum(row) if sum(row) else 0.0} for n in row]}
        for name, row in zip(classes, matrix, strict=True)
    ]


def _confused(scores: Mapping[str, Any], classes: list[str]) -> list[dict[str, Any]]:
    """The most frequent mistakes of a model."""
    found = scores.get("confused")
    triples = [t for t in found if _is_mistake(t, len(classes))] if isinstance(found, list) else []
    return [{"truth": classes[i], "guess": classes[j], "count": n} for i, j, n in triples[:LISTED]]


def _is_mistake(triple: Any, classes: int) -> bool:
    """Whether a value is ``[true, predicted, count]`` of classes that exist."""
    whole = isinstance(triple, list) and len(triple) == 3 and all(isinstance(n, int) for n in triple)
    return whole and 0 <= triple[0] < classes and 0 <= triple[1] < classes


def photos(facts: Facts) -> list[dict[str, Any]]:
    """The photographs of predictions.json with both answers."""
    return [_photo(photo) for photo in rows(facts.predictions.get("photos"))]


def picked(facts: Facts, which: str) -> dict[str, Any]:
    """Images of a kind: those that int8 answers otherwise than float, or is wrong about.

    Args:
        facts: ``predictions.json`` has their number among the scored images, ``changed_count``, and some of them,
            ``changed``: each is ``{"file", "label", "float": {"class", "probability"}, "int8": {...}, "jpeg_base64"}``.
        which: ``changed`` or ``mistakes``.
    """
    document = facts.predictions
    listed = [_photo(photo) for photo in rows(document.get(which))]
    count, compared = number(document.get(f"{which}_count")), number(facts.eval.get("count"))
    return {
        "known": isinstance(document.get(which), list),
        "count": len(listed) if count is None else int(count),
        "compared": None if compared is None else int(compared),
        "photos": listed,
    }


def _photo(photo: Mapping[str, Any]) -> dict[str, Any]:
    label = str(photo.get("label") or "")
    return {
        "file": PurePath(str(photo.get("file", ""))).name,
        "label": label,
        "image": _jpeg(photo.get("jpeg_base64")),
        "answers": [
            _answer(kind, answer, label) for kind in ("float", "int8") if (answer := mapping(photo.get(kind)))
        ],
    }


def _answer(kind: str, answer: Mapping[str, Any], label: str) -> dict[str, str]:
    name = str(answer.get("class", ""))
    tone, mark = ("", "") if not label else ("", "\u00a0✓") if name == label else ("bad", "\u00a0✗")
    return {
        "kind": kind,
        "name": name,
        "probability": percent(answer.get("probability"), 0),
        "tone": tone,
        "mark": mark,
    }


def _jpeg(text: Any) -> str:
    """``text`` if it is the base64 of a JPEG, else "": nothing else may be named one in the page."""
    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        return ""
    return base64.b64encode(data).decode() if data.startswith(b"\xff\xd8\xff") else ""
