"""Results as text for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgecls.cli.common import number, percent, table


def show_scores(result: Mapping[str, Any]) -> str:
    """Accuracy of every model of a run on its test images, where the run and its report are."""
    rows = [(name, *_accuracies(scores)) for name, scores in result["test"].items()]
    count = next((scores.get("count") for scores in result["test"].values()), None)
    parts = [f"test accuracy, % of {count} images", table(("model", *ACCURACIES), rows)] if rows else []
    if result.get("drop") is not None:
        parts.append(f"int8 loses {100 * result['drop']:.2f} points of balanced accuracy")
    return "\n".join([*parts, *(f"{key}: {result[key]}" for key in ("run", "report") if result.get(key))])


ACCURACIES = {"top-1": "top1", "top-5": "top5", "balanced": "balanced_accuracy"}


def _accuracies(scores: Mapping[str, Any]) -> list[str | None]:
    return [percent(scores.get(key)) for key in ACCURACIES.values()]


def show_eval(result: Mapping[str, Any]) -> str:
    """Accuracy of one model, recall and precision per class, the largest confusions."""
    scores = result["metrics"]
    rows = [
        (c["class"], c["count"], percent(c["recall"]), percent(c["precision"])) for c in scores["per_class"]
    ]
    parts = [
        f"{result['model']}, {result['split']}, % of {scores['count']} images",
        table(tuple(ACCURACIES), [_accuracies(scores)], left=0),
        "",
        table(("class", "images", "recall", "precision"), rows),
    ]
    return "\n".join(parts + _confusions(scores["confusion"], result["classes"]))


def _confusions(confusion: list[list[int]], classes: list[str], most: int = 5) -> list[str]:
    pairs = [
        (count, i, j)
        for i, row in enumerate(confusion)
        for j, count in enumerate(row)
        if i != j and count > 0
    ]
    worst = sorted(pairs, reverse=True)[:most]
    if not worst:
        return []
    rows = [(classes[i], classes[j], count) for count, i, j in worst]
    return ["\nconfused most", table(("is", "taken for", "images"), rows, left=2)]


def show_verify(result: Mapping[str, Any]) -> str:
    """The parity ladder, then what is in each file."""
    rows = []
    for rung in result["rungs"]:
        difference = number(rung.get("max_steps"), 0)
        if difference is not None:
            difference += " steps"
        elif rung.get("of_range") is not None:
            difference = f"{rung['of_range']:.1e} of range"
        ok = rung.get("ok")
        verdict = None if ok is None else "ok" if ok else "FAILED"
        rows.append((rung["name"], difference, percent(rung.get("top1_agreement")), verdict))
    parts = [
        f"parity on {result['images']} images",
        table(("rung", "largest difference", "same top-1, %", ""), rows),
    ]
    files = [
        (
            name,
            number(f["bytes"] / 1e6),
            sum(f.get("ops", {}).values()),
            ", ".join(f.get("float_ops", [])) or "none",
            f.get("partitions"),
        )
        for name, f in result.get("files", {}).items()
    ]
    if files:
        parts += ["", table(("file", "MB", "ops", "float ops", "partitions"), files)]
    if result.get("size_ratio"):
        parts.append(f"int8 file: {result['size_ratio']:.3f} of fp32")
    return "\n".join(parts)


def show_files(result: Mapping[str, Any]) -> str:
    """Files that were written, and their run."""
    return "\n".join(
        [*(f"{kind}: {path}" for kind, path in result["files"].items()), f"run: {result['run']}"]
    )


def show_report(result: Mapping[str, Any]) -> str:
    """Where the page and the card are."""
    return "\n".join(f"{key}: {result[key]}" for key in ("report", "card", "run") if result.get(key))


def show_quantize(result: Mapping[str, Any]) -> str:
    """Files, ladder, accuracy."""
    parts = [show_verify(result["verify"])] if result.get("verify") else []
    return "\n\n".join([*parts, show_scores(result)])
