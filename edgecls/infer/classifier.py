"""One classifier over a run folder, a ``.keras`` file or a ``.tflite`` file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecls import precisions
from edgecls.data.images import read_all
from edgecls.errors import EdgeclsError, MissingError, UsageError
from edgecls.labels import read_labels
from edgecls.metrics import softmax
from edgecls.run import Run
from edgecls.saving import load_model
from edgecls.text import escape, first_line

if TYPE_CHECKING:
    from edgecls.data.preprocess import Preprocess

Pixels = NDArray[np.uint8]
Logits = NDArray[np.float32]

# kind -> (file in the run folder, the command that makes it)
KINDS = {
    **{name: (f"export/model_{name}.tflite", "edgecls export") for name in precisions.NAMES},
    "float": ("float.keras", "edgecls train"),
    "qat": ("qat.keras", "edgecls quantize"),
    "teacher": ("teacher.keras", "edgecls train"),
}
PREFERRED = ("int8", "float")
MODEL_SUFFIXES = (".keras", ".tflite")
BATCH = 32


class Classifier:
    """A model with its class names and its preprocessing.

    Attributes:
        path: The model file.
        classes: Class names in the order of the logits.
        preprocess: Makes the model's pixels from a photo, as in training.

    Example:
        >>> classifier = Classifier.load("runs/latest")  # doctest: +SKIP
        >>> pixels = classifier.preprocess.load("photo.jpg")  # doctest: +SKIP
        >>> classifier.logits(pixels[None]).shape  # doctest: +SKIP
        (1, 10)
    """

    def __init__(
        self, path: Path, forward: Callable[[Pixels], Logits], classes: list[str], preprocess: Preprocess
    ) -> None:
        self.path, self.classes, self.preprocess = path, classes, preprocess
        self._forward = forward

    @classmethod
    def load(cls, path: str | os.PathLike[str], kind: str | None = None) -> Classifier:
        """Load a classifier.

        Args:
            path: A run folder or a run's name, a ``.keras`` file (labels and preprocessing come from the run folder
                it lies in) or a ``.tflite`` file (they come from its metadata; without any, class numbers serve as
                names).
            kind: Which model of a run folder: a precision of ``edgecls.precisions`` (TFLite), "float", "qat", "teacher" (Keras). By
                default the int8 file where there is one, else the float model.

        Raises:
            MissingError: The path, or this kind of model, is not there.
            UsageError: The file is broken or is no image classifier that edgecls made.
        """
        path = Path(path)
        if path.suffix not in MODEL_SUFFIXES and not path.is_file():
            path = _model_of_run(path, kind)
        elif kind is not None:
            raise UsageError(
                "a kind chooses among the models of a run folder", where=str(path), fix="leave it out"
            )
        if not path.is_file():
            raise MissingError("no such file or run folder", where=str(path), fix="check the path")
        if path.suffix == ".tflite":
            return cls(path, *_load_tflite(path))
        if path.suffix == ".keras":
            return cls(path, *_load_keras(path))
        raise UsageError("not a model file", where=str(path), fix="give a run, a .keras or a .tflite file")

    def logits(self, images: Pixels) -> Logits:
        """Scores ``[N, C]`` float32 of ``images``, uint8 RGB ``[N, S, S, 3]`` as ``preprocess.load`` gives them.

        Raises:
            UsageError: The images have another shape or type.
        """
        images = np.asarray(images)
        size = self.preprocess.size
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
            raise UsageError(
                f"the model takes uint8 [N, {size}, {size}, 3], not {images.dtype} {list(images.shape)}",
                fix="make the pixels with the classifier's preprocess.load",
            )
        if not len(images):
            return np.zeros((0, len(self.classes)), np.float32)
        return self._forward(images)

    def predict(
        self,
        paths: Iterable[str | os.PathLike[str]],
        top: int = 5,
        skipped: list[dict[str, str]] | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[dict[str, Any]]:
        r"""The likeliest classes of image files.

        Args:
            paths: JPEG, PNG or other image files.
            top: How many classes to name, likeliest first.
            skipped: A list that gets ``{"image": path, "why": reason}`` of each file that cannot be read. None: such a
                file is an error.
            progress: Called with the number of files that are done.

        Returns:
            For each image ``{"image": path, "predictions": [{"class", "probability"}]}``. A path that is not UTF-8 or
            has control characters is written with escapes (``\xff``).

        Raises:
            UsageError: A file cannot be read, and ``skipped`` is None; its name is in the text.

        Example:
            >>> classifier = Classifier.load("runs/latest")  # doctest: +SKIP
            >>> classifier.predict(["photo.jpg"], top=1)  # doctest: +SKIP
            [{'image': 'photo.jpg', 'predictions': [{'class': 'cat', 'probability': 0.93}]}]
        """
        if top < 1:
            raise UsageError(f"top must be at least 1, not {top}")
        files, results = [os.fspath(path) for path in paths], []
        for start in range(0, len(files), BATCH):  # a folder of a million photos must not need memory for all
            read, pixels, bad = read_all(files[start : start + BATCH], self.preprocess.array)
            if bad and skipped is None:
                fix = "check the path, or leave it out"
                raise UsageError(f"cannot read the image: {bad[0][1]}", where=escape(bad[0][0]), fix=fix)
            if skipped is not None:
                skipped += [{"image": escape(file), "why": reason} for file, reason in bad]
            if read:
                probabilities = softmax(self.logits(np.stack(pixels)))
                results += [
                    self._answer(file, row, top) for file, row in zip(read, probabilities, strict=True)
                ]
            progress(min(start + BATCH, len(files)))
        return results

    def _answer(self, file: str, probabilities: NDArray[Any], top: int) -> dict[str, Any]:
        best = np.argsort(-probabilities, kind="stable")[:top]
        predictions = [{"class": self.classes[i], "probability": float(probabilities[i])} for i in best]
        return {"image": escape(file), "predictions": predictions}


def _model_of_run(path: Path, kind: str | None) -> Path:
    """The model file in a run folder, in the newest run of a folder of runs, or in the newest run of a name."""
    if kind is not None and kind not in KINDS:
        raise UsageError(f"unknown kind '{kind}'", fix="kinds are " + ", ".join(KINDS))
    has_models = any((path / file).is_file() for file, _ in KINDS.values())
    run = path if has_models else Run.find(path).path
    for name in (kind,) if kind else PREFERRED:
        if (run / KINDS[name][0]).is_file():
            return run / KINDS[name][0]
    file, command = KINDS[kind or "float"]
    raise MissingError(f"the run has no {file}", where=str(run), fix=f"make it with: {command}")


def _load_keras(path: Path) -> tuple[Callable[[Pixels], Logits], list[str], Preprocess]:
    model = load_model(path)
    shape, outputs = tuple(model.input_shape), tuple(model.output_shape)
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3 or len(outputs) != 2:
        raise UsageError(
            f"not an image classifier: it maps {list(shape)} to {list(outputs)}",
            where=str(path),
            fix="it must map [batch, S, S, 3] to [batch, classes]",
        )

    def forward(images: Pixels) -> Logits:
        parts = (images[i : i + BATCH].astype(np.float32) for i in range(0, len(images), BATCH))
        return np.concatenate([np.asarray(model.predict_on_batch(part), np.float32) for part in parts])

    classes, preprocess = _sidecars(path)
    if preprocess is None:
        raise UsageError(
            "nothing beside the model says how its images are prepared",
            where=str(path),
            fix="keep the .keras in its run folder, or use the .tflite, which carries it",
        )
    return forward, *_fitting(path, classes, preprocess, shape[1], outputs[-1])


def _load_tflite(path: Path) -> tuple[Callable[[Pixels], Logits], list[str], Preprocess]:
    from edgecls.export.inspect import Runner

    try:
        runner = Runner(path, threads=min(4, os.cpu_count() or 1))
    except (ValueError, RuntimeError) as error:
        raise UsageError(
            f"not a usable TFLite file: {first_line(error)}", where=str(path), fix="export it again"
        ) from error
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
    classes, preprocess = _metadata(path)
    return runner, *_fitting(path, classes, preprocess, shape[1], int(outputs[1]))


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


def _metadata(path: Path) -> tuple[list[str] | None, Preprocess | None]:
    """Labels and preprocessing from the file's metadata."""
    from edgecls.data.preprocess import Preprocess
    from edgecls.export import metadata

    try:
        content = metadata.read(path)
        settings = content.get("preprocess")
        return content.get("classes") or None, Preprocess.from_dict(settings) if settings else None
    except EdgeclsError:
        raise
    except Exception as error:  # a zip, JSON or table that somebody tampered with
        raise UsageError(
            f"its metadata is broken: {first_line(error)}", where=str(path), fix="export it again"
        ) from error


def _sidecars(path: Path) -> tuple[list[str] | None, Preprocess | None]:
    """Labels and preprocessing from the run folder a ``.keras`` file lies in."""
    from edgecls.data.preprocess import Preprocess

    labels, settings, recipe = (path.parent / n for n in ("labels.txt", "preprocess.json", "recipe.yaml"))
    classes = read_labels(labels) if labels.is_file() else None
    is_teacher = (
        path.name == KINDS["teacher"][0] and recipe.is_file()
    )  # a phase's pixels may not be the teacher's
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
