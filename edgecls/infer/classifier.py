"""One classifier over a run folder, a ``.keras`` file or a ``.tflite`` file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecls.errors import EdgeclsError, MissingError, UsageError
from edgecls.metrics import softmax
from edgecls.saving import load_model

if TYPE_CHECKING:
    from edgecls.data.preprocess import Preprocess

Pixels = NDArray[np.uint8]
Logits = NDArray[np.float32]

# kind -> (file in the run folder, the command that makes it)
KINDS = {
    "int8": ("export/model_int8.tflite", "edgecls export"),
    "fp32": ("export/model_fp32.tflite", "edgecls export"),
    "fp16": ("export/model_fp16.tflite", "edgecls export"),
    "float": ("float.keras", "edgecls train"),
    "qat": ("qat.keras", "edgecls quantize"),
    "teacher": ("teacher.keras", "edgecls train"),
}
PREFERRED = ("int8", "float")
BATCH = 32


class Classifier:
    """A model with its class names and its preprocessing.

    Attributes:
        path: The model file in use.
        classes: Class names in the order of the logits.
        preprocess: Makes the model's pixels from an image file, the same as in training.
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
            path: A run folder, a ``.keras`` file (labels and preprocessing come from the run folder it lies in) or
                a ``.tflite`` file (they come from its metadata; without any, class indices serve as names).
            kind: Which model of a run folder: "int8", "fp32", "fp16" (TFLite), "float", "qat", "teacher" (Keras). By
                default the int8 file where there is one, else the float model.

        Raises:
            MissingError: The path, or this kind of model, is not there.
            UsageError: The file is broken or is no image classifier that edgecls made.
        """
        path = Path(path)
        if path.is_dir():
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
        raise UsageError(
            f"'{path.suffix or path.name}' is no model file",
            where=str(path),
            fix="give a run, a .keras or a .tflite",
        )

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

    def predict(self, paths: Iterable[str | os.PathLike[str]], top: int = 5) -> list[dict[str, Any]]:
        """The likeliest classes of image files.

        Args:
            paths: JPEG, PNG or other image files.
            top: How many classes to name, likeliest first.

        Returns:
            For each image ``{"image": path, "predictions": [{"class", "probability"}]}``.

        Raises:
            UsageError: A file is missing, torn or no image; its name is in the text.
        """
        if top < 1:
            raise UsageError(f"top must be at least 1, not {top}")
        names, results = [str(p) for p in paths], []
        for start in range(0, len(names), BATCH):  # a folder of a million photos must not need memory for all
            chunk = names[start : start + BATCH]
            probabilities = softmax(self.logits(np.stack([self._pixels(name) for name in chunk])))
            for name, row in zip(chunk, probabilities, strict=True):
                best = np.argsort(-row, kind="stable")[:top]
                found = [{"class": self.classes[i], "probability": float(row[i])} for i in best]
                results.append({"image": name, "predictions": found})
        return results

    def _pixels(self, name: str) -> Pixels:
        try:
            return np.asarray(self.preprocess.load(name))
        except EdgeclsError as error:
            raise UsageError(
                error.what, where=error.where or name, fix="check the path, or leave it out"
            ) from error
        except Exception as error:  # a decoder's own error on a hostile file
            raise UsageError(f"cannot read the image: {_first_line(error)}", where=name) from error


def _model_of_run(run: Path, kind: str | None) -> Path:
    if kind is not None and kind not in KINDS:
        raise UsageError(f"unknown kind '{kind}'", fix="kinds are " + ", ".join(KINDS))
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
            f"not a usable TFLite file: {_first_line(error)}", where=str(path), fix="export it again"
        ) from error
    shape, outputs = [int(d) for d in runner.input["shape"]], runner.output["shape"]
    ends = (runner.interpreter.get_input_details(), runner.interpreter.get_output_details())
    fits = len(shape) == 4 and shape[0] == 1 and shape[1] == shape[2] and shape[3] == 3 and len(outputs) == 2
    if not fits or runner.input["dtype"] != np.uint8 or any(len(end) != 1 for end in ends):
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
    """Check labels and preprocessing against the model's own shapes; fill in what a bare file lacks."""
    from edgecls.data.preprocess import Preprocess

    classes = classes or [str(i) for i in range(outputs)]
    if len(classes) != outputs:
        raise UsageError(
            f"the model has {outputs} outputs, but there are {len(classes)} labels",
            where=str(path),
            fix="it does not belong to these labels",
        )
    if preprocess is None:  # the usual evaluation of ImageNet models; the file normalises the pixels itself
        preprocess = Preprocess(size)
    if preprocess.size != size:
        raise UsageError(
            f"the model takes {size} px images, but the preprocessing beside it makes {preprocess.size} px",
            where=str(path),
            fix="it belongs to another run",
        )
    return classes, preprocess


def _metadata(path: Path) -> tuple[list[str] | None, Preprocess | None]:
    """Labels and preprocessing that the file carries."""
    from edgecls.data.preprocess import Preprocess
    from edgecls.export import metadata

    try:
        found = metadata.read(path)
        given = found.get("preprocess")
        return found.get("classes") or None, Preprocess.from_dict(given) if given else None
    except EdgeclsError:
        raise
    except Exception as error:  # a zip, JSON or table that somebody tampered with
        raise UsageError(
            f"its metadata is broken: {_first_line(error)}", where=str(path), fix="export it again"
        ) from error


def _sidecars(path: Path) -> tuple[list[str] | None, Preprocess | None]:
    """Labels and preprocessing from the run folder a ``.keras`` file lies in."""
    from edgecls.data.preprocess import Preprocess

    labels, stated, recipe = (path.parent / n for n in ("labels.txt", "preprocess.json", "recipe.yaml"))
    classes = labels.read_text(encoding="utf-8").removesuffix("\n").split("\n") if labels.is_file() else None
    if stated.is_file():
        try:
            return classes, Preprocess.from_dict(json.loads(stated.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"cannot read it: {_first_line(error)}", where=str(stated), fix="export again"
            ) from error
    if recipe.is_file():
        from edgecls.recipe import load_recipe
        from edgecls.zoo import catalog

        model = load_recipe(recipe).model
        return classes, Preprocess.from_recipe(catalog.get(model.name), model)
    return classes, None


def _first_line(error: BaseException) -> str:
    """The first sentence of a library's error, so that ours stays one line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
