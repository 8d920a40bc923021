"""int8 for a ``.keras`` file that no run made: ranges from unlabeled photos, layers in float, the files."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecls.console import Console
from edgecls.errors import GateError, MissingError, UsageError
from edgecls.files import atomic
from edgecls.precisions import CALIBRATIONS, WEIGHT_SCALES
from edgecls.workflow.quantized_training import train
from edgecls.workflow.user_models import UserModel, read_user_model

if TYPE_CHECKING:
    import keras

    from edgecls.quantize.sensitivity import Layer

BATCH = 25
LEAST_JUDGED = 10  # photos; of fewer all calibrate and all are judged
SENSITIVITY_IMAGES = 50


@dataclass(frozen=True)
class Request:
    """What ``edgecls quantize MODEL.keras`` was asked for.

    Attributes:
        model: The ``.keras`` file.
        data: A folder of photos, at any depth; labels are not looked at.
        labels: A file with one label a line, or None.
        pixels: A key of ``edgecls.pixels.PIXELS``, or None.
        input_size: For a model that leaves it open, or None.
        keep_float: Layers that stay in float.
        method: How ranges are calibrated.
        weights: A key of ``edgecls.precisions.WEIGHT_SCALES``.
        equalize: Equalize consecutive kernels before.
        adaround: Learn which weights are rounded up.
        images: The most photos to use.
        epochs: Of quantization-aware training; 0: none.
        auto: Keep the fewest layers in float that meet ``max_drop``.
        max_drop: The most photos, in percent, that int8 may answer otherwise than float; None: any.
        folder: Where the files are written; None: beside the model.
        seed: Of the training.
    """

    model: Path
    data: Path
    labels: Path | None = None
    pixels: str | None = None
    input_size: int | None = None
    keep_float: tuple[str, ...] = ()
    method: str = CALIBRATIONS[0]
    weights: str = WEIGHT_SCALES[0]
    equalize: bool = False
    adaround: bool = False
    images: int = 400
    epochs: int = 0
    auto: bool = False
    max_drop: float | None = None
    folder: Path | None = None
    seed: int = 0

    def file(self, suffix: str) -> Path:
        """A file of the result: ``mine`` and the suffix, for ``mine.keras``."""
        return (self.folder or self.model.parent) / f"{self.model.stem}{suffix}"


@dataclass(frozen=True)
class Photos:
    """Pixels of a model, uint8 [N, size, size, 3], and the files they come from."""

    files: list[str]
    pixels: np.ndarray

    def batches(self) -> list[np.ndarray]:
        """Float batches, as ``calibrate`` takes them."""
        parts = (self.pixels[i : i + BATCH] for i in range(0, len(self.pixels), BATCH))
        return [part.astype(np.float32) for part in parts]

    def __getitem__(self, index: slice) -> Photos:
        return Photos(self.files[index], self.pixels[index])


def quantize_file(request: Request, console: Console) -> dict[str, Any]:
    """Quantize a saved model: ``NAME.int8.tflite``, and ``NAME.fp32.tflite`` to compare with.

    Every other photo calibrates (and trains); the others judge. Of fewer than 20 photos all do both.

    Args:
        request: What is wanted.
        console: Is told what happens.

    Returns:
        ``{"schema", "model", "files", "calibrated_on", "judged_on", "agreement", "kept_float", "verify"}``;
        ``agreement`` is the share of the judged photos that the int8 file answers as the float network.

    Raises:
        EdgeclsError: The model or the photos cannot be used.
        GateError: With ``auto``, no choice of layers meets ``max_drop``.
    """
    user = read_user_model(
        request.model, request.labels, request.pixels, request.input_size, request.keep_float
    )
    photos = read_photos(request, user, console)
    seen, judged = halves(photos)
    kept = user.kept
    if request.auto:
        kept = _fewest_in_float(request, user, seen, judged, console)
    twin = calibrated(user, seen, request, kept)
    if request.epochs:
        train(request, user, twin, seen, kept, console)
    return _written(request, user, twin, seen, judged, kept)


def calibrated(user: UserModel, photos: Photos, request: Request, kept: Sequence[str]) -> keras.Model:
    """The int8 twin after calibration and correction of its biases; ``kept`` are names of layers in float."""
    from edgecls.quantize.twin import as_patterns, calibrated_twin, some_images

    return calibrated_twin(
        user.network,
        photos.batches(),
        some_images([photos.pixels]),
        keep_float=as_patterns(kept),
        weights=request.weights,
        ranges=request.method,
        equalized=request.equalize,
        adaround=request.adaround,
    )


def read_photos(request: Request, user: UserModel, console: Console) -> Photos:
    """The photos of the folder, at most so many, evenly over their names; those that cannot be read are named."""
    from edgecls.data.images import read_all
    from edgecls.data.listing import list_photos

    if not request.data.is_dir():
        raise MissingError("no such folder", where=str(request.data), fix="name a folder of photos")
    found = list_photos(request.data)
    if not found:
        raise MissingError("no photos", where=str(request.data), fix="name a folder of images")
    chosen = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, request.images).astype(int))]
    files, pixels, skipped = read_all(chosen, user.preprocess.array)
    if skipped:
        path, reason = skipped[0]
        console.log(f"{len(skipped)} of {len(chosen)} photos left out; the first: {path}: {reason}")
    if not files:
        raise MissingError("no photo can be read", where=str(request.data), fix="name a folder of images")
    photos = Photos(files, np.stack(pixels))
    if len(photos.pixels) > 1 and not np.ptp(photos.pixels, axis=0).any():
        raise UsageError(
            "all photos are the same", where=str(request.data), fix="give photos as the phone will see"
        )
    return photos


def halves(photos: Photos) -> tuple[Photos, Photos]:
    """The photos that calibrate and those that judge."""
    if len(photos.files) < 2 * LEAST_JUDGED:
        return photos, photos
    return photos[::2], photos[1::2]


def answers(network: keras.Model, photos: Photos) -> np.ndarray:
    """The class of each photo, int [N]."""
    return scores(network, photos).argmax(1)


def scores(network: keras.Model, photos: Photos) -> np.ndarray:
    """What the network says of each photo, [N, classes]."""
    return np.concatenate([np.asarray(network(batch, training=False)) for batch in photos.batches()])


def agreement(user: UserModel, twin: keras.Model, photos: Photos) -> float:
    """The share of photos that both networks answer alike."""
    return float(np.mean(answers(user.network, photos) == answers(twin, photos)))


def _written(
    request: Request, user: UserModel, twin: keras.Model, seen: Photos, judged: Photos, kept: Sequence[str]
) -> dict[str, Any]:
    """Both files, compared with each other and with the networks they come from."""
    from edgecls.export import verify
    from edgecls.export.gates import gates
    from edgecls.export.tflite import to_tflite

    files = {"int8": request.file(".int8.tflite"), "fp32": request.file(".fp32.tflite")}
    files["int8"].parent.mkdir(parents=True, exist_ok=True)
    for precision, network in (("int8", twin), ("fp32", user.network)):
        to_tflite(network, files[precision], precision, user.classes, user.preprocess)  # type: ignore[arg-type]
    ladder = verify.ladder(judged.pixels, user.network, files["fp32"], twin, files["int8"])
    ladder["warnings"] = [reason for gate in gates(ladder) for reason in gate.get("reasons", ())]
    shutil.rmtree(request.file(".qat"), ignore_errors=True)
    (cost,) = (rung for rung in ladder["rungs"] if rung["name"] == f"float.keras ~ {files['int8'].name}")
    return {
        "schema": "edgecls.quantize_file/1",
        "model": str(request.model),
        "files": {precision: str(path) for precision, path in files.items()},
        "calibrated_on": len(seen.files),
        "judged_on": len(judged.files),
        "held_out": seen is not judged,
        "agreement": cost["top1_agreement"],
        "kept_float": list(kept),
        "verify": ladder,
    }


def explain_file(request: Request) -> dict[str, Any]:
    """What quantization makes of the model; see ``explain``."""
    from edgecls.quantize import make_plan
    from edgecls.quantize.twin import as_patterns

    user = read_user_model(
        request.model, request.labels, request.pixels, request.input_size, request.keep_float
    )
    plan = make_plan(user.network, keep_float=as_patterns(user.kept), weights=request.weights)
    return {"schema": "edgecls.plan/1", "model": str(request.model), "plan": plan.text().splitlines()}


def sensitivity_file(request: Request, console: Console) -> dict[str, Any]:
    """What each layer costs when it alone is int8: a table, and a plot beside the model.

    Returns:
        ``{"schema", "model", "judged_on", "plot", "layers": [{"layer", "kind", "sqnr_db", "agreement"}]}``, the worst
        layer first.
    """
    from edgecls.quantize.sensitivity import plot

    user = read_user_model(
        request.model, request.labels, request.pixels, request.input_size, request.keep_float
    )
    seen, judged = halves(read_photos(request, user, console))
    judged = judged[:SENSITIVITY_IMAGES]
    rows = _sensitivity(user, seen, judged, request, console)
    path = request.file(".sensitivity.svg")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part:
        part.write_text(plot(rows, request.model.stem), encoding="utf-8")
    return {
        "schema": "edgecls.sensitivity/1",
        "model": str(request.model),
        "judged_on": len(judged.files),
        "plot": str(path),
        "layers": [asdict(row) for row in rows],
    }


def _sensitivity(
    user: UserModel, seen: Photos, judged: Photos, request: Request, console: Console
) -> list[Layer]:
    from edgecls.export import heads
    from edgecls.quantize.sensitivity import measure

    twin = calibrated(user, seen, request, user.kept)
    logits, _ = heads.split(twin)
    with console.progress() as progress:
        task = progress.add_task("layers", total=None, text="")
        return measure(
            logits,
            judged.batches(),
            lambda done, total: progress.update(task, completed=done, total=total),
        )


def _fewest_in_float(
    request: Request, user: UserModel, seen: Photos, judged: Photos, console: Console
) -> tuple[str, ...]:
    """Names of the fewest of the most sensitive layers that have to stay in float for ``max_drop``, and ``user.kept``."""
    most = request.max_drop or 0.0
    ranked: list[str] = []

    def drop(count: int) -> float:
        kept = (*user.kept, *ranked[:count])
        twin = calibrated(user, seen, request, kept)
        lost = 100 * (1 - agreement(user, twin, judged))
        console.log(
            f"{count} of the most sensitive layers in float: {lost:.2f} % of photos answered otherwise"
        )
        return lost

    if drop(0) <= most:
        return user.kept
    rows = _sensitivity(user, seen, judged[:SENSITIVITY_IMAGES], request, console)
    ranked += [row.layer for row in rows if row.keepable]
    few, enough = 0, 1
    while drop(enough) > most:
        if enough == len(ranked):
            raise GateError(
                f"with all {enough} layers in float more than {most:g} % of photos are answered otherwise",
                where=str(request.model),
                fix="raise --max-drop, give more photos, or train: --epochs 3",
            )
        few, enough = enough, min(2 * enough, len(ranked))
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if drop(middle) <= most else (middle, enough)
    return (*user.kept, *ranked[:enough])
