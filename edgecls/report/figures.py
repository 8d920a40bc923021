"""Reads what a run folder holds and works out the figures that pages and cards show. No figure is made up here:
each comes from a JSON file of the run, and a file that is absent or broken is said to be."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

#: Evaluated models in the order a reader wants them.
MODELS = {
    "teacher": "teacher",
    "float": "float student",
    "fp32": "float TFLite",
    "qat": "QAT student",
    "int8": "int8 TFLite",
}
STAGES = {"teacher": "teacher", "student": "student", "qat": "quantization-aware"}
_STAGE_ORDER = (
    "teacher",
    "student",
    "float",
    "qat",
    "quantize",
    "export",
    "verify",
    "eval",
    "bench",
    "predict",
)


class RunLike(Protocol):
    """What the report needs of a run (``edgecls.run.Run`` is one)."""

    @property
    def path(self) -> Path: ...
    def file(self, *parts: str) -> Path: ...
    def metrics(self) -> list[dict[str, Any]]: ...


@dataclass(frozen=True)
class Figure:
    """One headline number.

    Attributes:
        label: What it is.
        text: The number with its unit, or "–".
        detail: Interval, count or parts it was made of.
        source: The file of the run it comes from.
        tone: "good", "bad" or "" where no judgement applies.
    """

    label: str
    text: str
    detail: str
    source: str
    tone: str = ""


class Facts:
    """The files of one run, parsed. Absent or broken ones are ``{}``; ``problems`` says why."""

    def __init__(self, run: RunLike) -> None:
        self.run = run
        self.problems: dict[str, str] = {}
        self.recipe_text, self.recipe = self._read_recipe()
        self.env = self._read("env.json")
        self.split = self._read("split.json")
        self.verify = self._read("verify.json")
        self.eval = self._read("eval.json")
        self.bench = self._read("bench.json")
        self.predictions = self._read("predictions.json")
        self.metrics = self._read_metrics()
        self.stages = self._read_stamps()
        self.name = str(self.recipe.get("name") or run.path.parent.name)
        self.time = run.path.name
        self.model = str(at(self.recipe, "model", "name") or "model")
        self.teacher = at(self.recipe, "teacher", "name")
        self.command_path = _shown(run.path)

    def command(self, verb: str, options: str = "") -> str:
        """The command line that makes a missing part of this run."""
        return f"edgecls {verb} {shlex.quote(self.command_path)}{options}"

    def scores(self, model: str) -> dict[str, Any]:
        """The entry of one model of eval.json, or ``{}``."""
        return mapping(at(self.eval, "models", model))

    def balanced(self, model: str) -> float | None:
        """Balanced accuracy of one model, 0 to 1."""
        return number(self.scores(model).get("balanced_accuracy"))

    def drop(self) -> float | None:
        """Balanced accuracy that int8 loses against the float student, in points."""
        whole, small = self.balanced("float"), self.balanced("int8")
        return None if whole is None or small is None else 100 * (whole - small)

    def bytes(self, precision: str) -> int | None:
        """Size of the exported file, from verify.json or bench.json."""
        name = f"model_{precision}.tflite"
        size = number(at(self.verify, "files", name, "bytes"))
        if size is None:
            size = next((number(r.get("bytes")) for r in self.results() if r.get("model") == name), None)
        return None if size is None else int(size)

    def size_ratio(self) -> float | None:
        """Bytes of the int8 file over bytes of the fp32 file."""
        stated = number(at(self.verify, "size_ratio"))
        if stated is not None:
            return stated
        small, whole = self.bytes("int8"), self.bytes("fp32")
        return small / whole if small and whole else None

    def results(self) -> list[dict[str, Any]]:
        """Rows of bench.json."""
        return rows(self.bench.get("results"))

    def result(self, precision: str, threads: int = 1) -> dict[str, Any]:
        """The row of bench.json of one exported file, or ``{}``; failed rows do not count."""
        for row in self.results():
            if (
                row.get("model") == f"model_{precision}.tflite"
                and row.get("threads") == threads
                and row.get("status") != "failed"
            ):
                return row
        return {}

    def latency_ratio(self) -> float | None:
        """Median int8 latency over median fp32 latency, one thread, same run."""
        small, whole = (number(self.result(p).get("median_ms")) for p in ("int8", "fp32"))
        return small / whole if small is not None and whole else None

    def _read(self, name: str) -> dict[str, Any]:
        path = self.run.file(name)
        if not path.is_file():
            self.problems[name] = "missing"
            return {}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            self.problems[name] = f"cannot be read: {error}"
            return {}
        if not isinstance(found, dict):
            self.problems[name] = "is not a JSON object"
            return {}
        return found

    def _read_recipe(self) -> tuple[str, dict[str, Any]]:
        try:
            text = self.run.file("recipe.yaml").read_text(encoding="utf-8")
            return text, mapping(yaml.safe_load(text))
        except (OSError, ValueError, yaml.YAMLError) as error:
            self.problems["recipe.yaml"] = str(error).splitlines()[0]
            return "", {}

    def _read_metrics(self) -> list[dict[str, Any]]:
        try:
            return rows(self.run.metrics())
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.problems["metrics.jsonl"] = f"cannot be read: {error}"
            return []

    def _read_stamps(self) -> list[dict[str, Any]]:
        """``{"name", "seconds", "finished"}`` of each finished stage, in the order of the work."""
        found = []
        for path in sorted(self.run.file("stamps").glob("*.json")):
            stamp = self._read(f"stamps/{path.name}")
            seconds = number(stamp.get("seconds"))
            if seconds is not None:
                name = str(stamp.get("stage") or path.stem)
                found.append({"name": name, "seconds": seconds, "finished": str(stamp.get("finished", ""))})
        known = {name: i for i, name in enumerate(_STAGE_ORDER)}
        return sorted(found, key=lambda s: (known.get(s["name"], len(known)), s["finished"]))


def headline(facts: Facts) -> list[Figure]:
    """The figures at the top of the page, in reading order."""
    made = []
    for model in ("teacher", "float", "int8"):
        if model == "teacher" and not facts.teacher and not facts.scores("teacher"):
            continue
        value, scores = facts.balanced(model), facts.scores(model)
        ends = pair(scores.get("balanced_accuracy_ci95"))
        parts = [f"{interval_text(ends)} (95 %)"] if ends else []
        if value is not None and facts.eval.get("count"):
            parts.append(f"{facts.eval['count']} {facts.eval.get('split', 'test')} images")
        made.append(
            Figure(f"Balanced accuracy, {MODELS[model]}", percent(value), " · ".join(parts), "eval.json")
        )
    drop = facts.drop()
    tone = "" if drop is None else "good" if drop <= 1 else "bad"
    change = None if drop is None else -drop
    made.append(
        Figure("int8 minus float", points(change), "balanced accuracy, same images", "eval.json", tone)
    )

    ratio = facts.size_ratio()
    sizes = [megabytes(facts.bytes(p)) for p in ("int8", "fp32")]
    source = "bench.json" if not facts.verify else "verify.json"
    detail = f"{sizes[0]} of {sizes[1]}" if ratio is not None and "–" not in sizes else ""
    made.append(Figure("Size, int8 / fp32", fixed(ratio, 2), detail, source))

    ratio = facts.latency_ratio()
    timed = [facts.result(p) for p in ("int8", "fp32")]
    detail = ""
    if ratio is not None:
        detail = f"{milliseconds(timed[0]['median_ms'])} of {milliseconds(timed[1]['median_ms'])}"
        if any(row.get("status") == "unsure" for row in timed):
            detail += ", unsure"
    tone = "" if ratio is None else "good" if ratio < 1 else "bad"
    made.append(Figure("Latency, int8 / fp32, one thread", fixed(ratio, 2), detail, "bench.json", tone))
    return made


def split_counts(split: Mapping[str, Any]) -> list[tuple[str, int, list[int]]]:
    """(name, images, images of each class) of train, val and test, from split.json."""
    found = []
    for name in ("train", "val", "test"):
        count = number(at(split, "splits", name, "count"))
        if count is not None:
            classes = at(split, "splits", name, "per_class")
            known = (
                [int(n) for n in map(number, classes) if n is not None] if isinstance(classes, list) else []
            )
            found.append((name, int(count), known))
    return found


def bad_images(split: Mapping[str, Any]) -> int:
    """How many files were left out because they cannot be decoded."""
    bad = split.get("bad")
    return len(bad) if isinstance(bad, list) else 0


def at(tree: Any, *keys: str) -> Any:
    """The value at a path of keys, or None where the path ends early."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def mapping(value: Any) -> dict[str, Any]:
    """``value`` if it is a mapping, else ``{}``."""
    return dict(value) if isinstance(value, Mapping) else {}


def rows(value: Any) -> list[dict[str, Any]]:
    """The mappings in ``value`` if it is a list, else ``[]``."""
    return [dict(row) for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []


def texts(value: Any) -> list[str]:
    """``value``'s items as texts if it is a list, else ``[]``."""
    return [str(v) for v in value] if isinstance(value, list) else []


def number(value: Any) -> float | None:
    """``value`` as a finite float, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def pair(value: Any) -> tuple[float, float] | None:
    """An interval, (low, high), or None."""
    ends = [number(v) for v in value] if isinstance(value, list) else []
    return (ends[0], ends[1]) if len(ends) == 2 and ends[0] is not None and ends[1] is not None else None


def fixed(value: Any, digits: int = 2) -> str:
    """A number with so many decimals, or "–"."""
    value = number(value)
    return "–" if value is None else f"{value:.{digits}f}"


def percent(value: Any, digits: int = 1) -> str:
    """A share of 1 in percent."""
    value = number(value)
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def interval_text(ends: tuple[float, float]) -> str:
    """An interval of shares in percent."""
    return f"{100 * ends[0]:.1f}–{100 * ends[1]:.1f} %"


def points(value: Any) -> str:
    """Percentage points, signed as given."""
    value = number(value)
    if value is None:
        return "–"
    value = round(value, 1)
    return f"{'−' if value < 0 else '+' if value > 0 else ''}{abs(value):.1f} points"


def milliseconds(value: Any) -> str:
    """Milliseconds with three figures."""
    value = number(value)
    return "–" if value is None else f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} ms"


def megabytes(value: Any) -> str:
    """Bytes as MB (10^6) or kB."""
    value = number(value)
    if value is None:
        return "–"
    return f"{value / 1e6:.2f} MB" if value >= 1e6 else f"{value / 1e3:.1f} kB"


def duration(seconds: Any) -> str:
    """Seconds as a person says them."""
    value = number(seconds)
    if value is None:
        return "–"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _shown(path: Path) -> str:
    """The run's path as one would type it here."""
    shown = os.path.relpath(path)
    return shown if not shown.startswith("..") else str(path)
