"""Opening a model file: what computes its logits, its class names, its preprocessing."""

from __future__ import annotations

import json
import os
import queue
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgecls.errors import EdgeclsError, UsageError
from edgecls.labels import read_labels
from edgecls.quiet import import_tensorflow
from edgecls.saving import load_model
from edgecls.text import first_line

if TYPE_CHECKING:
    from edgecls.data.preprocess import Preprocess

Pixels = NDArray[np.uint8]
Logits = NDArray[np.float32]
Forward = Callable[[Pixels], Logits]

SAVED_MODEL = "saved_model.pb"
BATCH = 32
_SIDECARS = ("labels.txt", "preprocess.json", "recipe.yaml")
_TEACHER = "teacher.keras"
_THREADS = 4  # of all interpreters together; a small network is no faster with more


class Opened(NamedTuple):
    """A model file that is ready to compute."""

    forward: Forward
    """Logits [N, C] of uint8 images [N, S, S, 3]; may be called by any number of threads."""
    classes: list[str]
    preprocess: Preprocess


class Pool:
    """Lends each of several equal models to one thread at a time; a thread that finds none free waits.

    An interpreter must never run in two threads at once. A pool of one is a lock.

    Example:
        >>> pool = Pool([lambda images: images + 1])
        >>> pool(1)
        2
    """

    def __init__(self, models: Sequence[Callable[[Any], Any]]) -> None:
        self._free: queue.SimpleQueue[Callable[[Any], Any]] = queue.SimpleQueue()
        for model in models:
            self._free.put(model)

    def __call__(self, images: Any) -> Any:
        model = self._free.get()
        try:
            return model(images)
        finally:
            self._free.put(model)


def is_saved_model(path: str | os.PathLike[str]) -> bool:
    """Whether a path is the folder of a TensorFlow SavedModel."""
    return (Path(path) / SAVED_MODEL).is_file()


def open_model(path: Path, workers: int = 1) -> Opened:
    """Open a ``.tflite`` or ``.keras`` file or the folder of a SavedModel.

    Args:
        path: It exists.
        workers: How many threads may compute at once. TFLite has an interpreter for each; the others have one model,
            which uses all cores for itself, and let the threads wait for each other.

    Raises:
        UsageError: It is broken or no image classifier, or its labels or preprocessing do not fit.
    """
    if is_saved_model(path):
        return _open_saved_model(path)
    return _open_keras(path) if path.suffix == ".keras" else _open_tflite(path, workers)


def _open_keras(path: Path) -> Opened:
    from edgecls.export.heads import OPERATORS, ending
    from edgecls.export.inspect import HEADS

    model = load_model(path)
    kind = ending(model)

    def logits(images: NDArray[np.float32]) -> Any:
        scores = model.predict_on_batch(images)
        return HEADS[OPERATORS[kind]](scores) if kind else scores

    return _of_batches(path, logits, tuple(model.input_shape), tuple(model.output_shape))


def _open_saved_model(path: Path) -> Opened:
    import_tensorflow()
    import tensorflow as tf

    try:
        model = tf.saved_model.load(os.fspath(path))
        signature = model.signatures["serving_default"]
        ((name, image),) = signature.structured_input_signature[1].items()
        ((output, answer),) = signature.structured_outputs.items()
    except Exception as error:  # TensorFlow raises a dozen types on a damaged folder
        raise UsageError(
            f"not a usable SavedModel of one input and one output: {first_line(error)}",
            where=str(path),
            fix="write it with: edgecls export --format saved_model",
        ) from error

    def predict(
        images: NDArray[np.float32], keep: Any = model
    ) -> Any:  # a signature does not hold its variables
        return signature(**{name: tf.constant(images)})[output]

    return _of_batches(path, predict, tuple(image.shape), tuple(answer.shape))


def _of_batches(
    path: Path,
    predict: Callable[[NDArray[np.float32]], Any],
    shape: tuple[Any, ...],
    outputs: tuple[Any, ...],
) -> Opened:
    """A TensorFlow model that takes batches of float pixels; its labels and preprocessing lie beside it."""
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3 or len(outputs) != 2:
        raise UsageError(
            f"not an image classifier: it maps {list(shape)} to {list(outputs)}",
            where=str(path),
            fix="it must map [batch, S, S, 3] to [batch, classes]",
        )

    def forward(images: Pixels) -> Logits:
        parts = (images[i : i + BATCH].astype(np.float32) for i in range(0, len(images), BATCH))
        return np.concatenate([np.asarray(predict(part), np.float32) for part in parts])

    classes, preprocess = _sidecars(path)
    if preprocess is None:
        raise UsageError(
            "nothing beside the model says how its images are prepared",
            where=str(path),
            fix="keep it in its run folder, or use the .tflite, which carries it",
        )
    return Opened(Pool([forward]), *_fitting(path, classes, preprocess, shape[1], outputs[-1]))


def _open_tflite(path: Path, workers: int) -> Opened:
    from edgecls.export.inspect import Runner

    content = path.read_bytes()  # a file that is mapped into memory must not be overwritten while it is used
    threads = max(1, min(_THREADS, os.cpu_count() or 1) // workers)
    try:
        runners = [Runner(content, threads) for _ in range(workers)]
    except (ValueError, RuntimeError) as error:
        raise UsageError(
            f"not a usable TFLite file: {first_line(error)}", where=str(path), fix="export it again"
        ) from error
    runner = runners[0]
    shape, outputs = [int(d) for d in runner.input["shape"]], runner.output["shape"]
    tensors = (runner.interpreter.get_input_details(), runner.interpreter.get_output_details())
    one_each = all(len(details) == 1 for details in tensors)
    fits = len(shape) == 4 and shape[0] == 1 and shape[1] == shape[2] and shape[3] == 3 and len(outputs) == 2
    if not fits or not one_each or runner.input["dtype"] != np.uint8:
        raise UsageError(
            f"not an image classifier with uint8 input: it takes {np.dtype(runner.input['dtype']).name} {shape}",
            where=str(path),
            fix="export the model with edgecls",
        )
    classes, preprocess = _metadata(path, content)
    return Opened(Pool(runners), *_fitting(path, classes, preprocess, shape[1], int(outputs[1])))


def _fitting(
    path: Path, classes: list[str] | None, preprocess: Preprocess | None, size: int, outputs: int
) -> tuple[list[str], Preprocess]:
    """Check that labels and preprocessing fit the model's shapes. Without them: class numbers, ImageNet's resize."""
    from edgecls.data.preprocess import Preprocess

    classes = classes or [str(i) for i in range(outputs)]
    if len(classes) != outputs:
        raise UsageError(
            f"the model has {outputs} outputs, but there are {len(classes)} labels",
            where=str(path),
            fix="use the labels of the run that made the model",
        )
    if preprocess is None:  # the usual evaluation of ImageNet models; the file normalizes the pixels itself
        preprocess = Preprocess(size)
    if preprocess.size != size:
        raise UsageError(
            f"the model takes {size} px images, but the preprocessing beside it makes {preprocess.size} px",
            where=str(path),
            fix="use the preprocess.json of the run that made the model",
        )
    return classes, preprocess


def _metadata(path: Path, content: bytes) -> tuple[list[str] | None, Preprocess | None]:
    """Labels and preprocessing from the file's metadata."""
    from edgecls.data.preprocess import Preprocess
    from edgecls.export.attached import attached

    classes, details = attached(content, str(path))
    try:
        settings = details.get("preprocess")
        return classes or None, Preprocess.from_dict(settings) if settings else None
    except EdgeclsError:
        raise
    except Exception as error:  # JSON that somebody tampered with
        raise UsageError(
            f"its metadata is broken: {first_line(error)}", where=str(path), fix="export it again"
        ) from error


def _sidecars(path: Path) -> tuple[list[str] | None, Preprocess | None]:
    """Labels and preprocessing from the run folder that a model lies in, from ``export/`` there, or from inside of it."""
    from edgecls.data.preprocess import Preprocess

    folders = [path, path.parent, *([path.parent.parent] if path.parent.name == "export" else [])]
    folder = next((f for f in folders if any((f / name).is_file() for name in _SIDECARS)), path.parent)
    labels, settings, recipe = (folder / name for name in _SIDECARS)
    classes = read_labels(labels) if labels.is_file() else None
    is_teacher = path.name == _TEACHER and recipe.is_file()  # a phase's pixels may not be the teacher's
    if settings.is_file() and not is_teacher:
        try:
            return classes, Preprocess.from_dict(json.loads(settings.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"cannot read it: {first_line(error)}", where=str(settings), fix="train or export again"
            ) from error
    if recipe.is_file():
        from edgecls.recipe import load_recipe
        from edgecls.zoo import catalog

        resolved = load_recipe(recipe)
        resolved = resolved if is_teacher else resolved.final
        entry = catalog.get(resolved.model.name)
        return classes, Preprocess.from_recipe(entry, resolved.model, resolved.data.antialias)
    return classes, None
