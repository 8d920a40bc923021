"""What a run folder holds, and whether it still is of the files that are there now.

No figure is made up here: each comes from a JSON file of the run. A file that is absent or broken is said to be, and
a figure that was measured on a file which has changed since is left out and named.
"""

from __future__ import annotations

import copy
import datetime
import functools
import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import yaml

from android_bench.output.plausible import row_problem
from edgecls import _yaml, precisions
from edgecls.files import sha256
from edgecls.infer.classifier import KINDS
from edgecls.metrics import difference_interval
from edgecls.phases import stages
from edgecls.report.values import at, mapping, number, pair, rows, texts
from edgecls.text import plural

#: Evaluated models in the order a reader wants them.
MODELS = {
    "teacher": "teacher",
    "float": "float student",
    **{name: kind.title for name, kind in precisions.KINDS.items() if kind.source == "float.keras"},
    "qat": "QAT student",
    "int8": precisions.KINDS["int8"].title,
}
STAGES = {"teacher": "teacher", "student": "student", "qat": "quantization-aware"}
PHASE = "student, phase {}"
CHANGED = "is of files that have changed since"


class RunLike(Protocol):
    """What the report needs of a run (``edgecls.run.Run`` is one)."""

    @property
    def path(self) -> Path: ...
    def file(self, *parts: str) -> Path: ...
    def metrics(self) -> list[dict[str, Any]]: ...
    def current(self, stage: str) -> bool: ...


class Facts:
    """The files of one run, parsed.

    Attributes:
        eval, bench, verify, predictions, split, preprocess, env, recipe: Content of these files. What is absent, broken or of
            files that have changed since is left out.
        trainings: Stages that train the student, in their order.
        metrics: Rows of ``metrics.jsonl``.
        stamps: Stamps of finished stages by name, in the order in which they finished.
        problems: Why a file counts for nothing, by its name; "missing" if it is not there.
        outdated: Figures that were left out of a file because they are of former files, by the file's name.
    """

    def __init__(self, run: RunLike) -> None:
        self.run = run
        self.problems: dict[str, str] = {}
        self.outdated: dict[str, list[str]] = {}
        self.recipe_text, self.recipe = self._read_recipe()
        self.env = self._read("env.json")
        self.split = self._read("split.json")
        self.preprocess = self._read("preprocess.json")
        self.verify = self._read_of_stage("verify.json", "verify")
        self.predictions = self._read_of_stage("predictions.json", "photos")
        self.eval = self._read_eval()
        self.bench = self._read_bench()
        self.metrics = self._read_metrics()
        self.stamps = self._read_stamps()
        self.trainings = stages([str(phase.get("name")) for phase in rows(self.recipe.get("phases"))])
        self.name = str(self.recipe.get("name") or run.path.parent.name)
        self.time = run.path.name
        self.model = _network(self.recipe, "model") or "model"
        self.teacher = _network(self.recipe, "teacher")
        self.command_path = _shown(run.path)

    def command(self, verb: str, options: str = "") -> str:
        """The command line that makes a missing part of this run."""
        return f"edgecls {verb} {shlex.quote(self.command_path)}{options}"

    def is_current(self, stage: str) -> bool:
        """Whether a stage is finished, and what it read and wrote is unchanged."""
        try:
            return self.run.current(stage)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # a stamp that somebody has edited
            return False

    def setting(self, stage: str, key: str) -> Any:
        """A setting that a stage was done with: from its stamp, else from the run's recipe.

        The recipe may have changed after the stage; its stamp has not.

        Args:
            stage: For example "qat".
            key: Dotted, for example "quantize.train.epochs".
        """
        inputs = mapping(self.stamps.get(stage, {}).get("inputs"))
        return inputs[key] if key in inputs else at(self.recipe_of(stage), *key.split("."))

    def recipe_of(self, stage: str) -> dict[str, Any]:
        """The recipe that a stage is done by: of a phase, with its changes."""
        for name, phase in zip(self.trainings, rows(self.recipe.get("phases")), strict=False):
            if name == stage:
                whole = _yaml.Tree(copy.deepcopy(self.recipe))
                whole.merge(_yaml.Tree({key: value for key, value in phase.items() if key != "name"}))
                return whole.values
        return self.recipe

    # Scores

    def scores(self, model: str) -> dict[str, Any]:
        """The entry of one model of eval.json, or ``{}``."""
        return mapping(at(self.eval, "models", model))

    def balanced(self, model: str) -> float | None:
        """Balanced accuracy of one model, 0 to 1."""
        return number(self.scores(model).get("balanced_accuracy"))

    def balanced_interval(self, model: str) -> tuple[float, float] | None:
        """95 % interval of ``balanced``."""
        return pair(self.scores(model).get("balanced_accuracy_ci95"))

    def drop(self) -> float | None:
        """Balanced accuracy that int8 loses against the float student, in points."""
        float_share, int8_share = self.balanced("float"), self.balanced("int8")
        return None if float_share is None or int8_share is None else 100 * (float_share - int8_share)

    def change_interval(self) -> tuple[float, float] | None:
        """95 % interval of balanced accuracy of int8 minus that of the float student, as shares."""
        float_share, int8_share = self.balanced("float"), self.balanced("int8")
        float_ends, int8_ends = self.balanced_interval("float"), self.balanced_interval("int8")
        if float_share is None or int8_share is None or float_ends is None or int8_ends is None:
            return None
        return difference_interval(int8_share, int8_ends, float_share, float_ends)

    def warnings(self) -> list[str]:
        """What the stamps of trainings, eval.json and verify.json warn of."""
        found = [
            f"{title_of(stage)}: {text}"
            for stage, stamp in self.stamps.items()
            for text in texts(at(stamp, "figures", "warnings"))
        ]
        found += [
            f"{MODELS.get(model, model)}: {text}"
            for model, scores in mapping(self.eval.get("models")).items()
            for text in texts(at(scores, "warnings"))
        ]
        return found + texts(self.verify.get("warnings"))

    def trained_without_test_images(self) -> bool | None:
        """Whether the images that are the test split now were outside of this run's training; None: not known.

        True if the student's stamp has the very training and validation images that split.json has now.
        """
        inputs = mapping(self.stamps.get(self.trainings[-1], {}).get("inputs"))
        pairs = [
            (inputs.get(f"images.{name}.sha256"), at(self.split, "splits", name, "sha256"))
            for name in ("train", "val")
        ]
        if not inputs or any(stamped is None or now is None for stamped, now in pairs):
            return None
        return all(stamped == now for stamped, now in pairs)

    # Files and their latency

    def bytes(self, precision: str) -> int | None:
        """Size of an exported file, from verify.json or bench.json."""
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
        int8_bytes, fp32_bytes = self.bytes("int8"), self.bytes("fp32")
        return int8_bytes / fp32_bytes if int8_bytes and fp32_bytes else None

    def results(self) -> list[dict[str, Any]]:
        """Rows of bench.json that were measured on the files in ``export/``."""
        return rows(self.bench.get("results"))

    def result(self, precision: str, threads: int) -> dict[str, Any]:
        """The row of bench.json of one exported file, or ``{}``; failed rows do not count."""
        for row in self.results():
            measured = row.get("status") != "failed" and number(row.get("median_ms")) is not None
            if measured and (row.get("model"), row.get("threads")) == (f"model_{precision}.tflite", threads):
                return row
        return {}

    def threads(self, *precisions: str) -> int | None:
        """The smallest number of threads that all of these precisions were measured with, or None."""
        counts = {r["threads"] for r in self.results() if isinstance(r.get("threads"), int)}
        return min((n for n in counts if all(self.result(p, n) for p in precisions)), default=None)

    # Reading

    def _read(self, name: str) -> dict[str, Any]:
        path = self.run.file(name)
        if not path.is_file():
            self.problems[name] = "missing"
            return {}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            self.problems[name] = f"cannot be read: {error}"
            return {}
        if not isinstance(found, dict):
            self.problems[name] = "is not a JSON object"
            return {}
        return found

    def _read_of_stage(self, name: str, stage: str) -> dict[str, Any]:
        """A file that a stage wrote, if that stage's stamp still holds."""
        found = self._read(name)
        if found and not self.is_current(stage):
            self.problems[name] = CHANGED
            return {}
        return found

    def _read_eval(self) -> dict[str, Any]:
        """eval.json with the scores of the very files that are in the run now, on the test images it has now."""
        found, models = self._read("eval.json"), {}
        test_images = at(self.split, "splits", "test", "sha256")
        other_images = None not in (test_images, found.get("split_sha256")) and (
            found["split_sha256"] != test_images
        )
        for model, scores in mapping(found.get("models")).items():
            title, name = MODELS.get(model, model), KINDS.get(model, (f"export/model_{model}.tflite",))[0]
            if other_images:
                self._leave_out("eval.json", f"{title} was scored on other test images")
            elif at(scores, "sha256") != self._digest(name):
                self._leave_out("eval.json", f"{title} was scored on another {name}")
            else:
                models[model] = mapping(scores)
        if "models" in found:
            found["models"] = models
        return found

    def _read_bench(self) -> dict[str, Any]:
        """bench.json with the rows of the very files that are in ``export/`` now."""
        found, current = self._read("bench.json"), []
        outdated: dict[str, int] = {}
        for row in rows(found.get("results")):
            name = Path(str(row.get("model", ""))).name
            if why := row_problem(row):
                self._leave_out("bench.json", f"{name} has figures that cannot be: {why}")
            elif row.get("sha256") == self._digest(f"export/{name}"):
                current.append(row)
            else:
                outdated[name] = outdated.get(name, 0) + 1
        for name, count in outdated.items():
            self._leave_out("bench.json", f"{plural(count, 'row')} of another {name}")
        return found | {"results": current} if found else {}

    def _leave_out(self, file: str, what: str) -> None:
        self.outdated.setdefault(file, []).append(what)

    def _digest(self, name: str) -> str:
        """SHA-256 of a file of the run; "absent" if it is not there, which no digest equals."""
        return _file_digest(self.run.file(name))

    def _read_recipe(self) -> tuple[str, dict[str, Any]]:
        try:
            text = self.run.file("recipe.yaml").read_text(encoding="utf-8")
            return text, mapping(yaml.safe_load(text))
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
            self.problems["recipe.yaml"] = str(error).splitlines()[0]
            return "", {}

    def _read_metrics(self) -> list[dict[str, Any]]:
        try:
            return rows(self.run.metrics())
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.problems["metrics.jsonl"] = f"cannot be read: {error}"
            return []

    def _read_stamps(self) -> dict[str, dict[str, Any]]:
        stamps = {}
        for path in sorted(self.run.file("stamps").glob("*.json")):
            stamp = self._read(f"stamps/{path.name}")
            if stamp:
                stamps[str(stamp.get("stage") or path.stem)] = stamp
        return dict(sorted(stamps.items(), key=lambda item: moment(item[1].get("finished"))))


def title_of(stage: str) -> str:
    """A stage's name for a reader."""
    kind, _, phase = stage.partition(".")
    return PHASE.format(phase) if phase and kind == "student" else STAGES.get(stage, stage)


def split_counts(split: Mapping[str, Any]) -> list[tuple[str, int, list[int]]]:
    """(name, images, images of each class) of train, val and test, from split.json."""
    found = []
    for name in ("train", "val", "test"):
        count = number(at(split, "splits", name, "count"))
        if count is not None:
            classes = at(split, "splits", name, "per_class")
            per_class = [number(n) for n in classes] if isinstance(classes, list) else []
            found.append((name, int(count), [int(n) for n in per_class if n is not None]))
    return found


def bad_images(split: Mapping[str, Any]) -> int:
    """How many files were left out because they cannot be decoded."""
    bad = split.get("bad")
    return len(bad) if isinstance(bad, list) else 0


def stage_seconds(facts: Facts) -> list[tuple[str, float]]:
    """(name, seconds) of each finished stage, in the order in which they finished."""
    timed = [(name, number(stamp.get("seconds"))) for name, stamp in facts.stamps.items()]
    return [(name, seconds) for name, seconds in timed if seconds is not None]


def _file_digest(path: Path) -> str:
    try:
        state = path.stat()
        return _digest_of(path, state.st_size, state.st_mtime_ns)
    except OSError:
        return "absent"


@functools.lru_cache(maxsize=256)
def _digest_of(path: Path, size: int, mtime_ns: int) -> str:
    """SHA-256 of a file; size and time only tell the cache that it may have changed."""
    return sha256(path)


def moment(text: Any) -> float:
    """A time stamp as seconds; what is no time comes last."""
    try:
        return datetime.datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return float("inf")


def _shown(path: Path) -> str:
    """The run's path as one would type it here."""
    shown = os.path.relpath(path)
    return shown if not shown.startswith("..") else str(path)


def _network(recipe: dict[str, Any], section: str) -> str | None:
    """The name of a section's network, or of its file."""
    return at(recipe, section, "name") or Path(str(at(recipe, section, "file") or "")).name or None
