"""One classifier over a run folder, a ``.keras`` or ``.tflite`` file, or a SavedModel."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecls import precisions
from edgecls.data import decoding, images
from edgecls.errors import MissingError, UsageError
from edgecls.infer.opening import BATCH, Forward, Logits, Pixels, is_saved_model, open_model
from edgecls.metrics import softmax
from edgecls.run import Run
from edgecls.text import escape

if TYPE_CHECKING:
    from edgecls.data.preprocess import Preprocess

Photo = str | os.PathLike[str] | bytes | NDArray[np.uint8]
"""A path, the bytes of an image file, or its pixels: uint8 [H, W], [H, W, 1] or [H, W, 3], RGB."""

# kind -> (file in the run folder, the command that makes it)
KINDS = {
    **{name: (f"export/model_{name}.tflite", "edgecls export") for name in precisions.NAMES},
    "float": ("float.keras", "edgecls train"),
    "qat": ("qat.keras", "edgecls quantize"),
    "teacher": ("teacher.keras", "edgecls train"),
}
PREFERRED = ("int8", "float")
MODEL_SUFFIXES = (".keras", ".tflite")


class Classifier:
    """A model with its class names and its preprocessing. Any number of threads may use one classifier.

    Attributes:
        path: The model file.
        classes: Class names in the order of the logits.
        preprocess: Makes the model's pixels from a photo, as in training.

    Example:
        >>> classifier = Classifier.load("runs/latest")  # doctest: +SKIP
        >>> pixels = classifier.pixels("photo.jpg")  # doctest: +SKIP
        >>> classifier.logits(pixels[None]).shape  # doctest: +SKIP
        (1, 10)
    """

    def __init__(
        self,
        path: Path,
        forward: Forward,
        classes: list[str],
        preprocess: Preprocess,
        alone: Forward | None = None,
    ) -> None:
        self.path, self.classes, self.preprocess = path, classes, preprocess
        self._forward, self._alone = forward, alone or forward

    @classmethod
    def load(cls, path: str | os.PathLike[str], kind: str | None = None, workers: int = 1) -> Classifier:
        """Load a classifier.

        Args:
            path: A run folder or a run's name; a ``.keras`` file or the folder of a SavedModel (labels and
                preprocessing come from the run folder it lies in); or a ``.tflite`` file (they come from its metadata;
                without any, class numbers serve as names).
            kind: Which model of a run folder: "int8", "fp32", "fp16" (TFLite), "float", "qat", "teacher" (Keras). By
                default the int8 file where there is one, else the float model.
            workers: How many threads may compute at once: so many interpreters are made of a ``.tflite`` file, and one
                on all cores. More threads than that wait for each other. The other kinds have one model.

        Raises:
            MissingError: The path, or this kind of model, is not there.
            UsageError: The file is broken or is no image classifier that edgecls made.
        """
        path = Path(path)
        if path.suffix not in MODEL_SUFFIXES and not path.is_file() and not is_saved_model(path):
            path = _model_of_run(path, kind)
        elif kind is not None:
            raise UsageError(
                "a kind chooses among the models of a run folder", where=str(path), fix="leave it out"
            )
        if not path.exists():
            raise MissingError("no such file or run folder", where=str(path), fix="check the path")
        if path.suffix not in MODEL_SUFFIXES and not is_saved_model(path):
            fix = "give a run, a .keras or a .tflite file, or a SavedModel"
            raise UsageError("not a model file", where=str(path), fix=fix)
        return cls(path, *open_model(path, workers))

    def pixels(self, photo: Photo, most: int | None = None) -> Pixels:
        """The model's input for one photo: uint8 RGB ``[S, S, 3]``.

        Args:
            photo: A path, the bytes of an image file, or its pixels.
            most: Image files of more pixels are refused before they are decoded.

        Raises:
            ValueError: It cannot be read or decoded; the text is the reason, without a name.
        """
        if isinstance(photo, np.ndarray):
            if photo.dtype != np.uint8 or photo.ndim not in (2, 3) or photo.shape[2:] not in ((), (1,), (3,)):
                raise ValueError(
                    f"pixels are uint8 [H, W], [H, W, 1] or [H, W, 3], not {photo.dtype} {list(photo.shape)}"
                )
            if not photo.size:
                raise ValueError("no pixels")
            return self.preprocess.array(photo)
        data = photo if isinstance(photo, bytes) else images.content(os.fspath(photo))
        return self.preprocess.array(decoding.decode(data, most).pixels)

    def logits(self, images: Pixels, alone: bool = False) -> Logits:
        """Scores ``[N, C]`` float32 of ``images``, uint8 RGB ``[N, S, S, 3]`` as ``pixels`` gives them.

        Args:
            images: The photos.
            alone: No other thread computes, so that all cores may. It only matters for more than one worker.

        Raises:
            UsageError: The images have another shape or type.
        """
        images = np.asarray(images)
        size = self.preprocess.size
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
            raise UsageError(
                f"the model takes uint8 [N, {size}, {size}, 3], not {images.dtype} {list(images.shape)}",
                fix="make the pixels with the classifier's pixels()",
            )
        if not len(images):
            return np.zeros((0, len(self.classes)), np.float32)
        return (self._alone if alone else self._forward)(images)

    def predict(
        self,
        photos: Iterable[Photo],
        top: int = 5,
        skipped: list[dict[str, Any]] | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[dict[str, Any]]:
        r"""The likeliest classes of photos.

        Args:
            photos: Paths of image files, the bytes of such files, or pixels (``Photo``).
            top: How many classes to name, likeliest first.
            skipped: A list that gets ``{"image": path, "why": reason}`` of each photo that cannot be read. None: such a
                photo is an error.
            progress: Called with the number of photos that are done.

        Returns:
            For each image ``{"image": path, "predictions": [{"class", "probability"}]}``. A path that is not UTF-8 or
            has control characters is written with escapes (``\xff``). Bytes and pixels have no path: their position in
            ``photos`` stands for it.

        Raises:
            UsageError: A photo cannot be read, and ``skipped`` is None; its name is in the text.

        Example:
            >>> classifier = Classifier.load("runs/latest")  # doctest: +SKIP
            >>> classifier.predict(["photo.jpg"], top=1)  # doctest: +SKIP
            [{'image': 'photo.jpg', 'predictions': [{'class': 'cat', 'probability': 0.93}]}]
        """
        if top < 1:
            raise UsageError(f"top must be at least 1, not {top}")
        given, results = list(photos), []
        for start in range(0, len(given), BATCH):  # a folder of a million photos must not need memory for all
            part = given[start : start + BATCH]
            names = [_name(photo, start + i) for i, photo in enumerate(part)]
            read, pixels = [], []
            for name, outcome in zip(names, self._attempt_all(part), strict=True):
                if isinstance(outcome, np.ndarray):
                    read.append(name)
                    pixels.append(outcome)
                elif skipped is None:
                    fix = "check the path, or leave it out"
                    raise UsageError(f"cannot read the image: {outcome}", where=str(name), fix=fix)
                else:
                    skipped.append({"image": name, "why": outcome})
            if read:
                rows = softmax(self.logits(np.stack(pixels)))
                results += [
                    {"image": name, "predictions": self.best(row, top)}
                    for name, row in zip(read, rows, strict=True)
                ]
            progress(start + len(part))
        return results

    def best(self, probabilities: NDArray[Any], top: int) -> list[dict[str, Any]]:
        """The ``top`` likeliest classes of one image, likeliest first: ``[{"class", "probability"}]``."""
        order = np.argsort(-probabilities, kind="stable")[:top]
        return [{"class": self.classes[i], "probability": float(probabilities[i])} for i in order]

    def _attempt_all(self, photos: Sequence[Photo]) -> list[Pixels | str]:
        """``pixels`` of each photo, in threads; for one that cannot be read, the reason."""

        def attempt(photo: Photo) -> Pixels | str:
            try:
                return self.pixels(photo)
            except ValueError as error:
                return str(error)

        with ThreadPoolExecutor(images.threads()) as pool:
            return list(pool.map(attempt, photos))


def _name(photo: Photo, position: int) -> str | int:
    return position if isinstance(photo, (bytes, np.ndarray)) else escape(os.fspath(photo))


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
