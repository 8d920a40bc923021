"""Scores, predictions and the report: what is read off a run's models."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from edgecls.console import Console
from edgecls.errors import UsageError
from edgecls.files import read_json, sha256, write_json
from edgecls.quiet import import_tensorflow
from edgecls.recipe import Data
from edgecls.run import Run
from edgecls.workflow.common import load_data, run_stage, spread

if TYPE_CHECKING:
    from edgecls.data.sources import Dataset, Split
    from edgecls.infer.classifier import Classifier

BATCH = 64
PHOTOS = 8
THUMBNAIL = 160


def score_run(run: Run, console: Console, data: Dataset, kinds: Sequence[str]) -> dict[str, Any]:
    """Score a run's models on its test split; kept in ``eval.json``, not measured again while a model's file is the same.

    Args:
        kinds: ``teacher``, ``float``, ``qat``, ``fp32``, ``int8``.

    Returns:
        ``{kind: metrics}`` of these kinds; without test images, empty.
    """
    from edgecls.infer.classifier import KINDS, Classifier
    from edgecls.metrics import evaluate as score

    test = data.test.subset(data.test.labels >= 0)
    if not len(test):
        console.log("no labelled test images: nothing to score")
        return {}
    file = run.file("eval.json")
    old = read_json(file) if file.exists() else {}
    split = data.describe()["splits"]["test"]
    kept = old.get("models", {}) if old.get("split_sha256") == split["sha256"] else {}
    digests = {k: sha256(path) for k, (name, _) in KINDS.items() if (path := run.file(name)).exists()}
    models = {kind: scores for kind, scores in kept.items() if scores["sha256"] == digests.get(kind)}
    for kind in kinds:
        if kind not in models:
            import_tensorflow()
            logits = _logits(Classifier.load(run.path, kind), test)
            models[kind] = score(logits, test.labels, data.classes) | {"sha256": digests[kind]}
            console.say(
                f"{kind}: balanced accuracy {models[kind]['balanced_accuracy']:.3f} on {len(logits)} test images"
            )
    write_json(
        file,
        {
            "schema": "edgecls.eval/1",
            "split": "test",
            "split_sha256": split["sha256"],
            "count": len(test),
            "classes": data.classes,
            "models": models,
        },
    )
    return {kind: models[kind] for kind in kinds}


def evaluate(
    target: Path | None, console: Console, data: str | None = None, split: str = "test"
) -> dict[str, Any]:
    """Score a model on labelled images.

    Args:
        target: A run, a ``.keras`` or a ``.tflite`` file; None: the newest run.
        data: A folder of class folders; None: the run's own data.
        split: ``train``, ``val`` or ``test`` of the run's data.

    Returns:
        ``{"schema", "model", "split", "classes", "metrics"}``.
    """
    from edgecls.infer.classifier import Classifier
    from edgecls.metrics import evaluate as score

    import_tensorflow()
    run = _run_of(target)
    classifier = Classifier.load(target or Run.find(None).path)
    if data is not None:
        settings = Data(
            source="folder", path=data, classes=classifier.classes, test_fraction=0.0, val_fraction=0.0
        )
        images = load_data(settings, console).train
        split = data
    elif run is not None:
        images = {"train": (d := load_data(run.recipe.data, console)).train, "val": d.val, "test": d.test}[
            split
        ]
    else:
        raise UsageError("which images?", where=str(target), fix="give --data FOLDER")
    labelled = images.subset(images.labels >= 0)
    return {
        "schema": "edgecls.evaluate/1",
        "model": str(classifier.path),
        "split": split,
        "classes": classifier.classes,
        "metrics": score(_logits(classifier, labelled), labelled.labels, classifier.classes),
    }


def predict(target: Path | None, images: Sequence[Path], top: int = 5) -> dict[str, Any]:
    """The likeliest classes of photos, by a run's int8 file (or float network), or by a model file.

    Returns:
        ``{"schema", "model", "results", "skipped"}``; see ``Classifier.predict``.
    """
    from edgecls.infer.classifier import Classifier

    import_tensorflow()
    classifier = Classifier.load(target or Run.find(None).path)
    skipped: list[dict[str, str]] = []
    results = classifier.predict(images, top, skipped)
    return {
        "schema": "edgecls.predict/1",
        "model": str(classifier.path),
        "results": results,
        "skipped": skipped,
    }


def report(run: Run, console: Console) -> dict[str, Any]:
    """Write ``report.html`` and ``card.md`` from what the run holds so far."""
    from edgecls.infer.classifier import KINDS
    from edgecls.report import write_card, write_report

    if run.file("export", "model_int8.tflite").exists() and run.file("eval.json").exists():
        inputs = {kind: run.file(KINDS[kind][0]) for kind in ("float", "int8")} | {
            "test": run.file("split.json")
        }
        run_stage(run, console, "photos", inputs, ["predictions.json"], partial(_write_predictions, run))
    page, card = write_report(run), write_card(run)
    return {"schema": "edgecls.report/1", "run": str(run.path), "report": str(page), "card": str(card)}


def _run_of(target: Path | None) -> Run | None:
    """The run that a target belongs to: itself, the folder of a model file, the newest; None for a lone file."""
    if target is None:
        return Run.find(None)
    folders = [target] if target.is_dir() else [target.parent, target.parent.parent]
    return next((Run(folder) for folder in folders if (folder / "recipe.yaml").is_file()), None)


def _pixels(split: Split, classifier: Classifier) -> Iterator[np.ndarray]:
    """The split's images as the classifier wants them: batches of uint8 [B, S, S, 3]."""
    from edgecls.data.pipeline import batches

    for pixels, _ in batches(split, classifier.preprocess, BATCH):
        yield pixels.numpy().astype(np.uint8)


def _logits(classifier: Classifier, split: Split) -> np.ndarray:
    """Logits of every image of a split, float32 [N, C]."""
    return np.concatenate([classifier.logits(pixels) for pixels in _pixels(split, classifier)])


def _write_predictions(run: Run) -> dict[str, Any]:
    """A few test photos with what the float and the int8 network say, for the report."""
    from edgecls.infer.classifier import Classifier
    from edgecls.metrics import softmax

    data = load_data(run.recipe.data, Console())
    some = spread(data.test, PHOTOS)
    models = {kind: Classifier.load(run.path, kind) for kind in ("float", "int8")}
    pixels = np.concatenate(list(_pixels(some, models["float"])))
    scores = {kind: softmax(model.logits(pixels)) for kind, model in models.items()}
    photos = []
    for i, name in enumerate(some.names):
        said = {
            kind: {"class": data.classes[row[i].argmax()], "probability": float(row[i].max())}
            for kind, row in scores.items()
        }
        label = data.classes[some.labels[i]] if some.labels[i] >= 0 else None
        photos.append({"file": name, "label": label, "jpeg_base64": _jpeg(pixels[i]), **said})
    write_json(run.file("predictions.json"), {"schema": "edgecls.predictions/1", "photos": photos})
    return {"photos": len(photos)}


def _jpeg(pixels: np.ndarray) -> str:
    """A small JPEG of uint8 [S, S, 3], as base64."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    image.save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
