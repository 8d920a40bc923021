"""Results as text for people. Each function takes the JSON object of a command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecls.cli.common import number, percent, table
from edgecls.text import plural

_CLASSES = 50  # of more, those with the lowest recall are listed
_WORST = 20
_CONFUSIONS = 5


def show_scores(result: Mapping[str, Any]) -> str:
    """Accuracy of every model of a run on its test images, where the run and its report are."""
    scores = result["test"]
    parts = []
    if scores:
        count = next(iter(scores.values()))["count"]
        parts = [f"test accuracy, % of {plural(count, 'image')}", _accuracies(scores)]
        parts += [
            f"warning: {kind} {text}" for kind, own in scores.items() for text in own.get("warnings", ())
        ]
    if result.get("drop") is not None:
        parts += _drop(result["drop"], scores["float"], scores["int8"])
    return "\n".join([*parts, *(f"{key}: {result[key]}" for key in ("run", "report") if result.get(key))])


def _accuracies(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """A table with a row a model; top-5 only where it says something."""
    with_top5 = any(entry.get("top5") is not None for entry in scores.values())
    header = ["model", "top-1", *(["top-5"] if with_top5 else []), "balanced", "95 % interval"]
    rows = []
    for name, entry in scores.items():
        top5 = [percent(entry.get("top5"))] if with_top5 else []
        balanced = percent(entry.get("balanced_accuracy"))
        interval = _interval(entry.get("balanced_accuracy_ci95"))
        rows.append([name, percent(entry.get("top1")), *top5, balanced, interval])
    note = "" if with_top5 else "\ntop-5 is left out: with five classes or fewer it is always 100 %"
    return table(header, rows) + note


def _interval(interval: Sequence[float] | None) -> str | None:
    return None if interval is None else f"{percent(interval[0])} - {percent(interval[1])}"


def _drop(drop: float, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What int8 loses, unless the float network answers one class: nothing is left to lose then."""
    if before.get("predicted_classes") == 1:
        return []
    from edgecls.metrics import difference_interval

    text = f"int8 {'gains' if drop < 0 else 'loses'} {abs(100 * drop):.2f} points of balanced accuracy"
    old, new = (entry.get("balanced_accuracy_ci95") for entry in (before, after))
    if old and new:
        low, high = difference_interval(after["balanced_accuracy"], new, before["balanced_accuracy"], old)
        text += f" (95 %: {100 * low:+.1f} to {100 * high:+.1f})"
    return [text]


def show_eval(result: Mapping[str, Any]) -> str:
    """Accuracy of one model, recall and precision of each class, the largest confusions."""
    scores = result["metrics"]
    listed, remark = scores["per_class"], ""
    if len(listed) > _CLASSES:
        with_recall = [c for c in listed if c["recall"] is not None]
        listed = sorted(with_recall, key=lambda c: c["recall"])[:_WORST]
        remark = f"the {len(listed)} of {len(scores['per_class'])} classes with the lowest recall"
    rows = [
        (
            c["class"],
            c["count"],
            percent(c["recall"]),
            _interval(c.get("recall_ci95")),
            percent(c["precision"]),
        )
        for c in listed
    ]
    parts = [
        f"{result['model']}, {result['split']}, % of {plural(scores['count'], 'image')}",
        _accuracies({Path(result["model"]).name: scores}),
        *(f"warning: {text}" for text in scores.get("warnings", ())),
        "",
        *([remark] if remark else []),
        table(("class", "images", "recall", "95 % interval", "precision"), rows),
    ]
    return "\n".join(parts + _confusions(scores["confused"], result["classes"]))


def _confusions(confused: Sequence[tuple[int, int, int]], classes: Sequence[str]) -> list[str]:
    """The most frequent mistakes, if there are any."""
    if not confused:
        return []
    rows = [(classes[truth], classes[guess], count) for truth, guess, count in confused[:_CONFUSIONS]]
    return ["\nconfused most", table(("is", "taken for", "images"), rows, left=2)]


def show_verify(result: Mapping[str, Any]) -> str:
    """The parity ladder, then what is in each file."""
    rungs = [
        (rung["name"], _difference(rung), percent(rung.get("top1_agreement")), _verdict(rung.get("ok")))
        for rung in result["rungs"]
    ]
    parts = [
        f"parity on {plural(result['images'], 'image')}",
        table(("rung", "largest difference", "same top-1, %", ""), rungs),
        *(f"warning: {text}" for text in result.get("warnings", ())),
    ]
    files = [
        (
            name,
            number(about["bytes"] / 1e6),
            sum(about.get("ops", {}).values()),
            (", ".join(about.get("float_ops", [])) or "none") if "int8" in name else "all",
            about.get("partitions"),
        )
        for name, about in result.get("files", {}).items()
    ]
    if files:
        parts += ["", table(("file", "MB", "ops", "float ops", "partitions"), files)]
    if result.get("size_ratio"):
        parts.append(f"int8 file: {result['size_ratio']:.3f} of fp32")
    return "\n".join(parts)


def _difference(rung: Mapping[str, Any]) -> str | None:
    steps = rung.get("max_steps")
    if steps is not None:
        return f"{steps:g} {'step' if steps == 1 else 'steps'}"
    return None if rung.get("of_range") is None else f"{rung['of_range']:.1e} of range"


def _verdict(ok: bool | None) -> str | None:
    return None if ok is None else "ok" if ok else "FAILED"


def show_files(result: Mapping[str, Any]) -> str:
    """Files that were written, and the run they are of."""
    return "\n".join(
        [
            *(f"{kind}: {path}" for kind, path in result["files"].items()),
            *([f"samples: {result['samples']}"] if result.get("samples") else []),
            *([f"run: {result['run']}"] if "run" in result else []),
        ]
    )


def show_report(result: Mapping[str, Any]) -> str:
    """Where the page and the card are."""
    return "\n".join(f"{key}: {result[key]}" for key in ("report", "card", "run") if result.get(key))


def show_quantize(result: Mapping[str, Any]) -> str:
    """Files, ladder, accuracy."""
    parts = [show_verify(result["verify"])] if result.get("verify") else []
    return "\n\n".join([*parts, show_scores(result)])


def show_quantized_file(result: Mapping[str, Any]) -> str:
    """The ladder of a model that no run made, and what it comes to."""
    judged = plural(result["judged_on"], "photo")
    seen = "which calibration did not see" if result["held_out"] else "which calibrated it too"
    files = result["verify"]["files"]
    return "\n".join(
        [
            show_verify(result["verify"]),
            *(
                f"in float: {name}: {why}"
                for about in files.values()
                for name, why in about.get("in_float", {}).items()
            ),
            f"int8 answers {percent(result['agreement'])} % of {judged} as float does, {seen}",
            *(f"{kind}: {path}" for kind, path in result["files"].items()),
        ]
    )


def show_sensitivity(result: Mapping[str, Any]) -> str:
    """The layers that lose most when they alone are int8."""
    rows = [
        (row["layer"], row["kind"], number(row["sqnr_db"], 1), percent(row["agreement"]))
        for row in result["layers"][:_WORST]
    ]
    shown, count = len(rows), len(result["layers"])
    return "\n".join(
        [
            f"the {shown} most sensitive of {plural(count, 'layer')}, on {plural(result['judged_on'], 'photo')}",
            table(("only int8 layer", "kind", "signal to noise, dB", "same answer, %"), rows, left=2),
            f"plot: {result['plot']}",
        ]
    )
