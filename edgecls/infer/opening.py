"""Opening a model file: what computes its logits, its class names, its preprocessing."""

from __future__ import annotations

import contextlib
import os
import queue
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgecls.data import images
from edgecls.errors import UsageError
from edgecls.infer.beside import Beside, read_beside
from edgecls.quiet import import_tensorflow
from edgecls.saving import load_model
from edgecls.text import first_line

if TYPE_CHECKING:
    import keras

    from edgecls.data.preprocess import Preprocess

Pixels = NDArray[np.uint8]
Logits = NDArray[np.float32]
Forward = Callable[[Pixels], Logits]

SAVED_MODEL = "saved_model.pb"
BATCH = 32
_THREADS = 4  # of the interpreters of all workers together; a small network is no faster with more


class Opened(NamedTuple):
    """A model file that is ready to compute."""

    forward: Forward
    """Logits [N, C] of uint8 images [N, S, S, 3]; may be called by any number of threads."""
    classes: list[str]
    preprocess: Preprocess
    alone: Forward | None = None
    """The same on all cores, for one photo at a time; None: ``forward`` uses them all."""


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
        workers: How many threads may compute at once. TFLite has an interpreter for each, and one on all cores for a
            thread that is alone; the others have one model, which uses all cores for itself, and let the threads wait
            for each other.

    Raises:
        UsageError: It is broken or no image classifier, or its labels or preprocessing do not fit.
    """
    if is_saved_model(path):
        return _open_saved_model(path)
    return _open_keras(path) if path.suffix == ".keras" else _open_tflite(path, workers)


def _open_keras(path: Path) -> Opened:
    from edgecls.export.heads import OPERATORS, ending
    from edgecls.export.inspect import HEADS

    model, beside = load_model(path), read_beside(path)
    kind, (mean, std) = ending(model), _normalization(path, model, beside)

    def logits(images: NDArray[np.float32]) -> Any:
        scores = model.predict_on_batch((images - mean) / std)
        return HEADS[OPERATORS[kind]](scores) if kind else scores

    return _of_batches(path, logits, tuple(model.input_shape), tuple(model.output_shape), beside)


def _normalization(path: Path, model: keras.Model, beside: Beside) -> tuple[Any, Any]:
    """Mean and deviation that pixels from 0 to 255 need before the network: none, if it normalizes them itself.

    The networks of runs do. One with a JSON file of its own may not.
    """
    if beside.own is None or _takes_pixels(model):
        return np.float32(0), np.float32(1)
    if not {"mean", "std"} <= beside.settings.keys():
        raise UsageError(
            "the model does not normalize pixels, and nothing says which values it takes",
            where=str(path),
            fix=f"put mean and std in {beside.own.name}",
        )
    mean, std = (255 * np.array(beside.settings[key], np.float32) for key in ("mean", "std"))
    return mean, std


def _takes_pixels(model: keras.Model) -> bool:
    from edgecls.quantize import lower, takes_pixels

    with contextlib.suppress(UsageError):  # an operation without a rule
        model, _ = lower(model, keep_float=("*",))  # brings the normalizations of Keras into two forms
    return takes_pixels(model)


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

    return _of_batches(path, predict, tuple(image.shape), tuple(answer.shape), read_beside(path))


def _of_batches(
    path: Path,
    predict: Callable[[NDArray[np.float32]], Any],
    shape: tuple[Any, ...],
    outputs: tuple[Any, ...],
    beside: Beside,
) -> Opened:
    """A TensorFlow model that takes batches of float pixels; its labels and preprocessing lie beside it."""
    one_each = not any(isinstance(side, (tuple, list)) for side in (*shape, *outputs))
    if not one_each or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3 or len(outputs) != 2:
        raise UsageError(
            f"not an image classifier: it maps {list(shape)} to {list(outputs)}",
            where=str(path),
            fix="it must map [batch, S, S, 3] to [batch, classes]",
        )

    def forward(images: Pixels) -> Logits:
        parts = (images[i : i + BATCH].astype(np.float32) for i in range(0, len(images), BATCH))
        return np.concatenate([np.asarray(predict(part), np.float32) for part in parts])

    if beside.own is None and not beside.settings:
        raise UsageError(
            "nothing beside the model says how its images are prepared",
            where=str(path),
            fix=f"keep it in its run folder, write {path.with_suffix('.json').name}, or use the .tflite, which carries it",
        )
    size = shape[1] or beside.settings.get("size")
    if size is None:
        fix = f'put "size" in {path.with_suffix(".json").name}'
        raise UsageError("the model leaves its input size open", where=str(path), fix=fix)
    return Opened(Pool([forward]), *_fitting(path, beside.labels, beside.settings, size, outputs[-1]))


def _open_tflite(path: Path, workers: int) -> Opened:
    from edgecls.export.attached import attached
    from edgecls.export.inspect import Runner

    content = path.read_bytes()  # a file that is mapped into memory must not be overwritten while it is used
    most = min(_THREADS, images.threads())
    threads = max(1, most // workers)
    try:
        runners = [Runner(content, threads) for _ in range(workers)]
        alone = Pool([Runner(content, most)]) if threads < most else None
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
    classes, settings = attached(content, str(path))
    settings = settings.get("preprocess") or {}
    if not (classes and settings) and (beside := read_beside(path)).own:
        classes, settings = classes or beside.labels or [], settings or beside.settings
    return Opened(Pool(runners), *_fitting(path, classes, settings, shape[1], int(outputs[1])), alone)


def _fitting(
    path: Path, classes: list[str] | None, settings: dict[str, Any], size: int, outputs: int
) -> tuple[list[str], Preprocess]:
    """Labels and preprocessing, if they fit the model's shapes. Without any: class numbers, ImageNet's resize."""
    from edgecls.data.preprocess import Preprocess

    classes = classes or [str(i) for i in range(outputs)]
    if len(classes) != outputs:
        raise UsageError(
            f"the model has {outputs} outputs, but there are {len(classes)} labels",
            where=str(path),
            fix="use the labels of the run that made the model",
        )
    try:
        preprocess = Preprocess(**{"size": size, **settings})
    except UsageError as error:
        raise UsageError(error.what, where=error.where or str(path), fix=error.fix) from None
    except Exception as error:  # JSON that somebody tampered with
        raise UsageError(
            f"its preprocessing is broken: {first_line(error)}", where=str(path), fix="export it again"
        ) from error
    if preprocess.size != size:
        raise UsageError(
            f"the model takes {size} px images, but the preprocessing beside it makes {preprocess.size} px",
            where=str(path),
            fix="use the preprocess.json of the run that made the model",
        )
    return classes, preprocess
