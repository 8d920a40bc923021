"""Scores, predictions and the report: what is read off a run's models."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from edgecls.console import Console
from edgecls.errors import EdgeclsError, UsageError
from edgecls.files import atomic, read_json, sha256, write_json
from edgecls.quiet import import_tensorflow
from edgecls.run import Run
from edgecls.workflow.checking import check_trained_on
from edgecls.workflow.common import evenly, load_data, name_bad, run_stage, say
from edgecls.workflow.sanity import warnings_of_scores

if TYPE_CHECKING:
    from edgecls.data.preprocess import Preprocess
    from edgecls.data.sources import Dataset
    from edgecls.data.split import Split
    from edgecls.infer.classifier import Classifier

BATCH = 64
PHOTOS = 8  # that the report shows
CHANGED = 12  # photos that int8 answers otherwise, of which the report shows at most so many
MISTAKES = 12  # photos that int8 is surest of and wrong about
THUMBNAIL = 160  # pixels


def score_run(run: Run, console: Console, data: Dataset, kinds: Sequence[str]) -> dict[str, Any]:
    """Score a run's models on its test split.

    Scores are kept in ``eval.json``, and each model's answers in ``answers.npz``. Nothing is measured again while the
    model's file and the test images with their labels are the same.

    Args:
        run: Has the models.
        console: Is told each model's accuracy, and what is wrong with it.
        data: The run's images.
        kinds: ``teacher``, ``float``, ``qat``, ``fp32``, ``fp16``, ``int8``.

    Returns:
        ``{kind: metrics}`` of these kinds; without labeled test images, empty.
    """
    from edgecls.infer.classifier import KINDS, Classifier
    from edgecls.metrics import softmax

    test = data.test.subset(data.test.labels >= 0)
    if not len(test):
        console.log("no labeled test images: nothing to score")
        run.file("eval.json").unlink(missing_ok=True)
        return {}
    split = data.test.sha256
    models, answers = _kept_scores(run, split)
    for kind in [kind for kind in kinds if kind not in models]:
        import_tensorflow()
        logits = _logits(Classifier.load(run.path, kind), test)
        scores = _scores(logits, test.labels, data.classes)
        digest = sha256(run.file(KINDS[kind][0]))
        answers[f"{kind}_class"] = logits.argmax(1).astype(np.int32)
        answers[f"{kind}_probability"] = softmax(logits).max(1)
        models[kind] = scores | {"sha256": digest}
        console.say(
            f"{kind}: balanced accuracy {scores['balanced_accuracy']:.3f} on {len(logits)} test images"
        )
        for warning in models[kind]["warnings"]:
            console.log(f"warning: {kind} {warning}")
    with atomic(run.file("answers.npz")) as part:
        np.savez(part, labels=test.labels, **dict[str, Any](answers))
    write_json(
        run.file("eval.json"),
        {
            "schema": "edgecls.eval/1",
            "split": "test",
            "split_sha256": split,
            "count": len(test),
            "classes": data.classes,
            "models": models,
        },
    )
    return {kind: models[kind] for kind in kinds}


def _scores(logits: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """What ``metrics.evaluate`` says of logits, with their calibration error, ``ece``, and what is wrong with them."""
    from edgecls.metrics import calibration_error, softmax
    from edgecls.metrics import evaluate as score

    scores, probabilities = score(logits, labels, classes), softmax(logits)
    ece = calibration_error(probabilities.max(1), probabilities.argmax(1) == labels)
    return scores | {"ece": ece, "warnings": warnings_of_scores(scores)}


def drop(scores: dict[str, Any]) -> float | None:
    """Balanced accuracy that int8 lost against float, as a fraction; None if either was not scored."""
    accuracies = [scores.get(kind, {}).get("balanced_accuracy") for kind in ("float", "int8")]
    return None if None in accuracies else accuracies[0] - accuracies[1]


def _kept_scores(run: Run, split: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Entries of ``eval.json`` that still hold, and these models' answers."""
    from edgecls.infer.classifier import KINDS

    old, answers = _eval(run), _answers(run)
    if old.get("split_sha256") != split:
        return {}, {}
    digests = {kind: sha256(path) for kind, (name, _) in KINDS.items() if (path := run.file(name)).exists()}
    models = {
        kind: scores
        for kind, scores in old.get("models", {}).items()
        if scores["sha256"] == digests.get(kind) and f"{kind}_class" in answers
    }
    return models, {key: value for key, value in answers.items() if key.rpartition("_")[0] in models}


def _eval(run: Run) -> dict[str, Any]:
    """The content of ``eval.json``; empty if there is none, or a damaged one."""
    with suppress(EdgeclsError):
        return read_json(run.file("eval.json"))
    return {}


def _answers(run: Run) -> dict[str, np.ndarray]:
    """``<kind>_class`` and ``<kind>_probability`` of each test image, [N], and ``labels``; empty if none are kept."""
    with suppress(OSError, ValueError, zipfile.BadZipFile), np.load(run.file("answers.npz")) as file:
        return dict(file.items())
    return {}


def evaluate(
    target: Path | None, console: Console, data: Path | None = None, split: str = "test"
) -> dict[str, Any]:
    """Score a model on labeled images.

    Args:
        target: A run, a ``.keras`` or a ``.tflite`` file; None: the newest run.
        console: Is told how far the work is.
        data: A folder of class folders, a folder with ``train``, ``val`` and ``test`` in it, or a list file; None:
            the run's own data.
        split: ``train``, ``val`` or ``test``, where the data has them.

    Returns:
        ``{"schema", "model", "split", "classes", "metrics"}``.

    Raises:
        UsageError: No labeled images; or the run's photos have changed since its training, so that a test image
            may have been trained on.
    """
    from edgecls.data.sources import load_for_scoring
    from edgecls.infer.classifier import Classifier

    import_tensorflow()
    run = _run_of(target)
    classifier = Classifier.load(target or Run.find(None).path)
    images: Split
    if data is not None:
        images, shown = load_for_scoring(data, classifier.classes, split), str(data)
        say(images.notes, console)
        name_bad(images.bad, console)
    elif run is not None:
        dataset, shown = load_data(run.recipe.final.data, console), split
        if split != "train":
            check_trained_on(run, dataset)
        images = {"train": dataset.train, "val": dataset.val, "test": dataset.test}[split]
    else:
        raise UsageError("which images?", where=str(target), fix="give --data FOLDER")
    labelled = images.subset(images.labels >= 0)
    if not len(labelled):
        raise UsageError(
            "there are no labeled images to score", where=shown, fix="add labels, or name others"
        )
    metrics = _scores(_logits(classifier, labelled), labelled.labels, classifier.classes)
    return {
        "schema": "edgecls.evaluate/1",
        "model": str(classifier.path),
        "split": shown,
        "classes": classifier.classes,
        "metrics": metrics,
    }


def report(run: Run, console: Console) -> dict[str, Any]:
    """Write ``report.html`` and ``card.md`` from what the run holds so far."""
    from edgecls.infer.classifier import KINDS
    from edgecls.report import write_card, write_report

    if {"float_class", "int8_class"} <= set(_answers(run)):
        inputs = {kind: run.file(KINDS[kind][0]) for kind in ("float", "int8")} | {
            "test": run.file("split.json"),
            "answers": run.file("answers.npz"),
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


def _pixels(split: Split, preprocess: Preprocess) -> Iterator[np.ndarray]:
    """The split's images as a network wants them: batches of uint8 [B, S, S, 3]."""
    from edgecls.data.pipeline import batches

    for pixels, _ in batches(split, preprocess, BATCH):
        yield pixels.numpy().astype(np.uint8)


def _logits(classifier: Classifier, split: Split) -> np.ndarray:
    """Logits of every image of a split, float32 [N, C]."""
    return np.concatenate([classifier.logits(pixels) for pixels in _pixels(split, classifier.preprocess)])


def _write_predictions(run: Run) -> dict[str, Any]:
    """Test photos with what the float and the int8 network answer, for the report: a few, where they differ, the worst."""
    from edgecls.infer.classifier import Classifier

    data = load_data(run.recipe.final.data, Console())
    test = data.test.subset(data.test.labels >= 0)
    preprocess = Classifier.load(run.path, "float").preprocess
    kept = _answers(run)
    answers = {kind: (kept[f"{kind}_class"], kept[f"{kind}_probability"]) for kind in ("float", "int8")}
    if data.test.sha256 != _eval(run).get("split_sha256"):
        fix = "run edgecls train or edgecls quantize again"
        raise UsageError("the test images have changed since they were scored", where=str(run.path), fix=fix)

    answered, probability = answers["int8"]
    changed = np.flatnonzero(answers["float"][0] != answered)
    wrong = np.flatnonzero(answered != test.labels)
    worst = wrong[np.argsort(-probability[wrong], kind="stable")][:MISTAKES]
    photos, of_changed, mistakes = (
        _photos(test, chosen, data.classes, answers, preprocess)
        for chosen in (evenly(test.labels, PHOTOS), changed[evenly(test.labels[changed], CHANGED)], worst)
    )
    result = {
        "schema": "edgecls.predictions/1",
        "photos": photos,
        "changed_count": len(changed),
        "changed": of_changed,
        "mistakes_count": len(wrong),
        "mistakes": mistakes,
    }
    write_json(run.file("predictions.json"), result)
    return {"photos": len(photos), "changed": len(changed), "mistakes": len(wrong)}


def _photos(
    split: Split,
    chosen: np.ndarray,
    classes: Sequence[str],
    answers: Mapping[str, tuple[np.ndarray, np.ndarray]],
    preprocess: Preprocess,
) -> list[dict[str, Any]]:
    """Images of a split with their labels and each model's answer, as the report shows them.

    Args:
        split: Labeled images.
        chosen: Their indices, [n].
        classes: Names.
        answers: For each kind of model the class and its probability, [N] each, of all images of the split.
        preprocess: Makes the pixels that are shown.
    """
    shown = split.subset(chosen)
    pixels = [image for batch in _pixels(shown, preprocess) for image in batch]
    return [
        {"file": name, "label": classes[label], "jpeg_base64": _jpeg(image)}
        | {
            kind: {"class": classes[indices[i]], "probability": float(probabilities[i])}
            for kind, (indices, probabilities) in answers.items()
        }
        for i, name, label, image in zip(chosen, shown.names, shown.labels, pixels, strict=True)
    ]


def _jpeg(pixels: np.ndarray) -> str:
    """A small JPEG of uint8 [S, S, 3], as base64."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    image.save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
