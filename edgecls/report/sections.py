"""The other sections of the page as texts ready to print: summary, parity, latency, settings."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from typing import Any

from edgecls import precisions
from edgecls.report import plots
from edgecls.report.facts import Facts, split_counts
from edgecls.report.units import fixed, mebibytes, megabytes, milliseconds, percent
from edgecls.report.values import at, mapping, number, pair, rows, texts
from edgecls.text import plural


def absent(facts: Facts) -> dict[str, dict[str, str]]:
    """What the page says in place of each part that it cannot show: why, and the command that makes it."""
    commands = commands_of(facts)
    return {
        part: {"problem": _problem(facts, file), "command": commands[part]} for part, file in _FILES.items()
    }


_FILES = {
    "eval": "eval.json",
    "predictions": "predictions.json",
    "metrics": "metrics.jsonl",
    "verify": "verify.json",
    "bench": "bench.json",
}


def commands_of(facts: Facts) -> dict[str, str]:
    """The command that makes each part of the run as it is now; "" where none can."""
    there = {
        name: facts.run.file(name).exists()
        for name in ("qat.keras", "export/model_int8.tflite", "answers.npz")
    }
    recipe = shlex.quote(f"{facts.command_path}/recipe.yaml")
    train = f"edgecls train {recipe} --run {shlex.quote(facts.command_path)}"
    train = train if facts.recipe else "edgecls train RECIPE"
    quantize = facts.command("quantize")
    exported = there["export/model_int8.tflite"]
    scored = quantize if there["qat.keras"] else train
    return {
        "eval": "" if at(facts.split, "splits", "test", "count") == 0 else scored,
        "predictions": facts.command("report") if exported and there["answers.npz"] else quantize,
        "metrics": train,
        "verify": facts.command("verify") if exported else quantize,
        "bench": facts.command("bench", " --device host --threads 1,2") if exported else quantize,
    }


def _problem(facts: Facts, file: str) -> str:
    """Why a file's figures cannot be shown, if it is more than that there is no such file."""
    if outdated := facts.outdated.get(file):
        return f"{file}: {'; '.join(outdated)}"
    if file == "eval.json" and at(facts.split, "splits", "test", "count") == 0:
        return "The split has no test images"
    problem = facts.problems.get(file, "missing")
    return "" if problem == "missing" else f"{file} {problem}"


def set_aside(facts: Facts) -> str:
    """What is known of the test images: whether the training may have seen them."""
    apart = facts.trained_without_test_images()
    if apart is None:
        return (
            "Whether the training saw some of the test images is not known: the student's stamp does not say."
        )
    if not apart:
        return (
            "The split has changed since the student was trained: test images may have been among its training "
            "images, and the figures may be too good."
        )
    if at(facts.recipe, "data", "test_path"):
        origin = "The test images come from a folder of their own"
    else:
        origin = "The test images were set aside by a fixed, stratified split before anything was trained"
    return (
        f"{origin}; training, selection of checkpoints and calibration read only the images of train and val, "
        "whose hashes are in the student's stamp."
    )


def summary(facts: Facts) -> str:
    """The run in one sentence or two."""
    source = at(facts.recipe, "data", "source")
    text = facts.model
    if facts.teacher:
        text += f" taught by {facts.teacher}"
    total = sum(count for _, count, _ in split_counts(facts.split))
    if total:
        text += f", on {plural(total, 'image')}" + ("" if source in (None, "folder") else f" of {source}")
    gated = [r for r in rows(facts.verify.get("rungs")) if isinstance(r.get("ok"), bool)]
    failed = sum(not r["ok"] for r in gated)
    if failed:
        text += f". {failed} of {len(gated)} parity checks failed: do not ship this export"
    elif gated:
        text += f". {len(gated)} of {plural(len(gated), 'parity check')} hold"
    return text + "."


def ladder(facts: Facts) -> dict[str, Any]:
    """The parity ladder and the exported files of verify.json, as texts."""
    return {
        "images": facts.verify.get("images", "?"),
        "rungs": [_rung(r) for r in rows(facts.verify.get("rungs"))],
        "files": [_file(name, about) for name, about in mapping(facts.verify.get("files")).items()],
    }


def _file(name: str, about: Any) -> dict[str, Any]:
    """What is in an exported file."""
    quantized = "int8" in name
    ops = [(str(op), int(n)) for op, n in mapping(at(about, "ops")).items() if number(n) is not None]
    ops.sort(key=lambda o: (-o[1], o[0]))
    partitions = number(at(about, "partitions"))
    return {
        "name": name,
        "size": megabytes(at(about, "bytes")),
        "ops": [{"name": op, "count": n} for op, n in ops],
        "most": max((n for _, n in ops), default=0),
        "total": sum(n for _, n in ops),
        "partitions": None if partitions is None else int(partitions),
        "tone": "" if not quantized else "good" if partitions == 1 else "warn",
        "undelegated": _counted(texts(at(about, "undelegated"))),
        "float_ops": texts(at(about, "float_ops")) if quantized else [],
        "quantized": quantized and isinstance(at(about, "float_ops"), list),
    }


def _counted(names: list[str]) -> str:
    """Names with how often each occurs: "QUANTIZE, ADD x 14"."""
    return ", ".join(name if count == 1 else f"{name} x {count}" for name, count in Counter(names).items())


def _rung(rung: Mapping[str, Any]) -> dict[str, str]:
    steps, share, limit = (number(rung.get(key)) for key in ("max_steps", "of_range", "limit"))
    absolute, unit = number(rung.get("max_abs")), ""
    if steps is not None:
        difference, unit = _steps(steps), " step" if limit == 1 else " steps"
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


def _steps(count: float) -> str:
    return f"{count:g} {'step' if count == 1 else 'steps'}"


def bench(facts: Facts) -> dict[str, Any]:
    """Device, protocol, table and plots of bench.json."""
    results = facts.results()
    names = {f"model_{kind}.tflite": kind for kind in precisions.NAMES}
    drawn = (
        plots.latency(results),
        plots.against_latency(
            results,
            {name: facts.balanced(kind) for name, kind in names.items()},
            "balanced accuracy, %",
            {name: facts.balanced_interval(kind) for name, kind in names.items()},
        ),
        plots.sizes(results),
    )
    return {
        "device": device(facts),
        "protocol": protocol_text(facts.bench.get("protocol")),
        "rows": bench_rows(facts),
        "plots": [plot for plot in drawn if plot],
    }


_PROTOCOL = {  # key of a protocol -> its noun for one and for more
    "warmup": ("warm-up run", "warm-up runs"),
    "runs": ("measured run a round", "measured runs a round"),
    "rounds": ("round", "rounds"),
}


def protocol_text(protocol: Any) -> str:
    """How often each figure was measured, in words."""
    counts = {key: number(value) for key, value in mapping(protocol).items()}
    parts = [
        plural(int(count), *nouns)
        for key, nouns in _PROTOCOL.items()
        if (count := counts.get(key)) is not None
    ]
    return f"Each figure: {', '.join(parts)}." if parts else ""


def bench_rows(facts: Facts) -> list[dict[str, str]]:
    """The rows of bench.json, as texts."""
    return [bench_row(row) for row in facts.results()]


def bench_row(row: Mapping[str, Any]) -> dict[str, str]:
    """A result of bench.json, as texts."""
    status = str(row.get("status", ""))
    interval = pair(row.get("ci95_ms"))
    threads = number(row.get("threads"))
    return {
        "model": str(row.get("model", "")),
        "threads": fixed(threads, 0),
        "threads_text": "" if threads is None else plural(int(threads), "thread"),
        "median": milliseconds(row.get("median_ms")),
        "interval": f"{fixed(interval[0])} – {fixed(interval[1])}" if interval else "–",
        "p90": milliseconds(row.get("p90_ms")),
        "min": milliseconds(row.get("min_ms")),
        "n": str(row.get("n", "–")),
        "init": milliseconds(row.get("init_ms")),
        "peak": mebibytes(row.get("peak_mib")),
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
    parts = [str(found[key]) for key in ("name", "cpu") if found.get(key)]
    cores = number(found.get("cores"))
    if cores:
        parts.append(plural(int(cores), "core"))
    return ", ".join(dict.fromkeys(parts)) or str(found.get("kind") or "–")


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
