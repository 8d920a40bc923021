"""The stages that leave Python behind: export, and the parity ladder."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecls.console import Console
from edgecls.errors import EdgeclsError, MissingError
from edgecls.files import atomic, read_json, sha256, write_json
from edgecls.labels import read_labels
from edgecls.precisions import KINDS, Precision
from edgecls.quiet import import_tensorflow
from edgecls.run import Run, Stage
from edgecls.saving import load_model
from edgecls.workflow.common import load_data, load_deployed, run_preprocess, run_stage, spread

if TYPE_CHECKING:
    import keras

    from edgecls.data.sources import Dataset
    from edgecls.data.split import Split

TFLITE = {name: f"export/model_{name}.tflite" for name in KINDS}
SOURCES = {name: kind.source for name, kind in KINDS.items()}
MAKERS = {"float.keras": "edgecls train RECIPE", "qat.keras": "edgecls quantize"}
OTHER_FORMATS = {
    "saved_model": "export/saved_model",
    "keras": "export/model.keras",
    "onnx": "export/model.onnx",
}
APPS = {"android": "export/android", "web": "export/web"}
LADDER_IMAGES = 200
ONNX_IMAGES = 20
SAMPLES = 8
SAMPLES_FOLDER = "export/samples"


def explain(run: Run) -> dict[str, Any]:
    """What quantization makes of the run's float network: ``{"schema", "run", "plan": [a line an operation]}``.

    Raises:
        MissingError: The run has no float network.
        UsageError: A layer has no rule.
    """
    network = load_deployed(run.require("float.keras", fix=f"make it with: {MAKERS['float.keras']}"))
    from edgecls.quantize import make_plan

    settings = run.recipe.quantize
    plan = make_plan(network, keep_float=settings.keep_float, weights=settings.weights)
    return {"schema": "edgecls.plan/1", "run": str(run.path), "plan": plan.text().splitlines()}


def export(
    run: Run,
    console: Console,
    precisions: Sequence[Precision] | None = None,
    formats: Sequence[str] = ("tflite",),
    data: Dataset | None = None,
) -> dict[str, Any]:
    """Write the run's networks for other programs under ``export/``.

    Beside the .tflite files it writes ``samples/``: a few photos with the pixels and scores that are right.

    Args:
        precisions: Names of ``edgecls.precisions`` for TFLite; None: what the recipe says, without int8 if the run is
            not quantized.
        formats: ``tflite``, ``saved_model``, ``keras`` (Keras' own layers alone, opens without edgecls), ``onnx`` (compared
            with onnxruntime on the run's photos), ``android`` and ``web`` (a folder for an app, around the int8 file if that
            is among the precisions, else the first).
        data: The run's data, if it is loaded already. Without the photos there are no samples.

    Returns:
        ``{"schema", "run", "files": {precision or format: path}, "samples": folder or None}``.

    Raises:
        MissingError: The run has no network for what was asked for; the line names the command that makes it.
    """
    files: dict[str, str] = {}
    samples = None
    apps = [form for form in APPS if form in formats]
    if "tflite" in formats or apps:
        precisions = precisions or _precisions_of_recipe(run)
        for precision in precisions:
            inputs, work = _export_inputs(run, precision), partial(_write_tflite, run, precision)
            run_stage(run, console, f"export_{precision}", inputs, [TFLITE[precision]], work)
            files[precision] = str(run.file(TFLITE[precision]))
        samples = _export_samples(run, console, data)
        for form in apps:
            chosen = "int8" if "int8" in precisions else precisions[0]
            files[form] = str(_write_app(run.file(TFLITE[chosen]), form, run.file(APPS[form])))
    for form in OTHER_FORMATS:
        if form in formats:
            files[form] = str(_write_other(run, console, form, data))
    return {"schema": "edgecls.export/1", "run": str(run.path), "files": files, "samples": samples}


def exported(run: Run) -> dict[str, Path]:
    """The run's TFLite files that were made from its present networks, by precision.

    Example:
        >>> exported(run)  # doctest: +SKIP
        {'fp32': PosixPath('.../export/model_fp32.tflite'), 'int8': PosixPath('.../export/model_int8.tflite')}
    """
    return {
        precision: run.file(name)
        for precision, name in TFLITE.items()
        if run.file(SOURCES[precision]).exists()
        and run.stage(f"export_{precision}", _export_inputs(run, precision), [name]).done
    }


def _precisions_of_recipe(run: Run) -> list[Precision]:
    wanted = run.recipe.export.precisions
    ready = [precision for precision in wanted if run.file(SOURCES[precision]).exists()]
    if not ready:
        source = SOURCES[wanted[0]]
        raise MissingError(
            f"the recipe asks for {', '.join(wanted)}, and the run has no {source}",
            where=str(run.path),
            fix=f"make it with: {MAKERS[source]}",
        )
    return ready


def _export_inputs(run: Run, precision: str) -> dict[str, Any]:
    source = SOURCES[precision]
    return {
        "model": run.require(source, fix=f"make it with: {MAKERS[source]}"),
        "labels": run.file("labels.txt"),
        "preprocess": run.file("preprocess.json"),
        "output": run.recipe.export.output,
        "scores": run.recipe.export.scores,
    }


def _write_tflite(run: Run, precision: Precision) -> dict[str, Any]:
    from edgecls.data.preprocess import Preprocess
    from edgecls.export.tflite import to_tflite

    path = run.file(TFLITE[precision])
    network = load_deployed(run.file(SOURCES[precision]))
    preprocess = Preprocess.from_dict(read_json(run.file("preprocess.json")))
    classes = read_labels(run.file("labels.txt"))
    wanted = run.recipe.export
    to_tflite(network, path, precision, classes, preprocess, wanted.output, wanted.scores)
    return {"bytes": path.stat().st_size}


def _export_samples(run: Run, console: Console, data: Dataset | None) -> str | None:
    """Write ``export/samples`` with a few photos of the test split (or another one, if there are none)."""
    try:
        data = data or load_data(run.recipe.final.data, console)
    except EdgeclsError as error:  # the files can be exported where the photos are not
        console.log(f"no samples beside the files: {error}")
        return None
    split = spread(next(part for part in (data.test, data.val, data.train) if len(part)), SAMPLES)
    files = exported(run)
    inputs = {**files, "preprocess": run.file("preprocess.json"), "photos": split.digests}
    work = partial(_write_samples, run, split, files)
    run_stage(run, console, "samples", inputs, [SAMPLES_FOLDER], work)
    return str(run.file(SAMPLES_FOLDER))


def _write_samples(run: Run, split: Split, files: dict[str, Path]) -> dict[str, Any]:
    from edgecls.data.images import decode, read_file
    from edgecls.data.preprocess import Preprocess
    from edgecls.export.samples import Sample, png, write_samples

    settings, classes = read_json(run.file("preprocess.json")), read_labels(run.file("labels.txt"))
    preprocess, samples = Preprocess.from_dict(settings), []
    for i, label in enumerate(split.labels):
        if split.files is not None:
            photo, suffix = read_file(split.files[i]), Path(split.files[i]).suffix
            image = decode(photo)
        else:
            image = split.images[i]  # type: ignore[index]  # a split has files or images
            photo, suffix = png(image), ".png"
        name = classes[label] if label >= 0 else None
        samples.append(Sample(photo, suffix, preprocess.array(image), name))
    with atomic(run.file(SAMPLES_FOLDER)) as folder:
        write_samples(folder, samples, files, classes, settings)
    return {"photos": len(samples)}


def _write_other(run: Run, console: Console, form: str, data: Dataset | None) -> Path:
    """Write the float network in a format of ``OTHER_FORMATS``; the ``.keras`` has Keras' own layers alone."""
    import_tensorflow()
    from edgecls.export.stock import to_stock

    model = load_deployed(run.require("float.keras", fix=f"make it with: {MAKERS['float.keras']}"))
    path = run.file(OTHER_FORMATS[form])
    if form == "onnx":
        _write_onnx(run, console, model, path, data)
        return path
    with atomic(path) as part:
        model.export(part, verbose=False) if form == "saved_model" else to_stock(model).save(part)
    return path


def _write_onnx(run: Run, console: Console, model: keras.Model, path: Path, data: Dataset | None) -> None:
    from edgecls.export.onnx import to_onnx

    classes, settings = read_labels(run.file("labels.txt")), read_json(run.file("preprocess.json"))
    data = data or load_data(run.recipe.final.data, console)
    images = _pixels(spread(data.train, ONNX_IMAGES), run)
    difference = to_onnx(model, path, classes, settings, images)
    console.log(f"onnx: within {difference:.1g} of the outputs' range of Keras on {len(images)} photos")


def export_apps(model: Path, formats: Sequence[str]) -> dict[str, Any]:
    """Write folders for apps around a .tflite file that has labels and preprocessing in it: ``NET.web`` of ``NET.tflite``.

    Args:
        model: As ``edgecls export`` or ``edgecls quantize`` wrote it.
        formats: Keys of ``APPS``.

    Returns:
        ``{"schema", "model", "files": {format: folder}}``.

    Raises:
        MissingError: There is no such file.
        UsageError: It is no such file.
    """
    if not model.is_file():
        raise MissingError("no such file", where=str(model), fix="check the path")
    files = {form: str(_write_app(model, form, model.with_suffix(f".{form}"))) for form in formats}
    return {"schema": "edgecls.export_file/1", "model": str(model), "files": files}


def _write_app(model: Path, form: str, path: Path) -> Path:
    """Write a folder of ``APPS`` around a .tflite file."""
    from edgecls.export.android import write_android
    from edgecls.export.web import write_web

    write: dict[str, Callable[[Path, Path], None]] = {"android": write_android, "web": write_web}
    with atomic(path) as folder:
        write[form](model, folder)
    return path


@dataclass(frozen=True)
class Ladder:
    """What the parity ladder compares, and on what.

    Attributes:
        networks: ``float.keras`` and ``qat.keras``, those that the run has, by their stems.
        files: The TFLite files, by precision.
        digests: A hash of each image's content.
        read: Reads the images: uint8 [N, S, S, 3].
    """

    networks: dict[str, Path]
    files: dict[str, Path]
    digests: list[str]
    read: Callable[[], np.ndarray]

    def stage(self, run: Run) -> Stage:
        """The stage ``verify``: its stamp holds the content of the networks, the files and the images."""
        return run.stage("verify", self.inputs, ["verify.json"])

    @property
    def inputs(self) -> dict[str, Any]:
        """What the stamp is made from."""
        runtime = importlib.metadata.version("ai-edge-litert")
        return {**self.networks, **self.files, "images": self.digests, "runtime": runtime}


def prepare_ladder(
    run: Run, console: Console, images: Path | None = None, data: Dataset | None = None
) -> Ladder:
    """Find what the ladder compares.

    Args:
        images: A folder of photos, with or without class folders; at most 200 are taken, evenly over their names.
            None: 200 of the run's training images.
        data: The run's data, if it is loaded already.

    Raises:
        MissingError: The run is not trained or not exported yet, or the folder has no photos.
    """
    run.require("float.keras", fix=f"make it with: {MAKERS['float.keras']}")
    files = exported(run)
    if not files:
        raise MissingError(
            "nothing to compare: the run's networks are not exported",
            where=str(run.path),
            fix="export them first: edgecls export",
        )
    networks = {path.stem: path for name in MAKERS if (path := run.file(name)).exists()}
    if images is not None:
        return Ladder(networks, files, *_photos_of_folder(run, console, images))
    return Ladder(
        networks, files, *_photos_of_training(run, data or load_data(run.recipe.final.data, console))
    )


def verify(
    run: Run, console: Console, images: Path | None = None, data: Dataset | None = None
) -> dict[str, Any]:
    """Climb the parity ladder (keras = qat = tflite) on real images; writes ``verify.json``.

    Args:
        images: As for ``prepare_ladder``.
        data: As for ``prepare_ladder``.

    Returns:
        The content of ``verify.json``; a rung that does not hold has ``"ok": false``. Rungs exist for what the run has:
        without QAT there are only those of the float files.

    Raises:
        MissingError: The run is not trained or not exported yet, or the folder has no photos.
    """
    ladder = prepare_ladder(run, console, images, data)
    run_stage(run, console, "verify", ladder.inputs, ["verify.json"], partial(_climb, run, ladder))
    return read_json(run.file("verify.json"))


def _climb(run: Run, ladder: Ladder) -> dict[str, Any]:
    from edgecls.export import verify

    pixels = ladder.read()
    networks = {stem: load_model(path) for stem, path in ladder.networks.items()}
    result = verify.ladder(
        pixels,
        networks["float"],
        ladder.files.get("fp32"),
        networks.get("qat"),
        ladder.files.get("int8"),
        rounded=[path for name, path in ladder.files.items() if name not in ("fp32", "int8")],
    )
    write_json(run.file("verify.json"), result)
    return {"images": len(pixels)}


def _photos_of_training(run: Run, data: Dataset) -> tuple[list[str], Callable[[], np.ndarray]]:
    """Digests and pixels of 200 of the training images."""
    split = spread(data.train, LADDER_IMAGES)
    return split.digests, partial(_pixels, split, run)


def _pixels(split: Split, run: Run) -> np.ndarray:
    """What the run's network sees of a split: uint8 [N, S, S, 3]."""
    from edgecls.data.pipeline import batches

    pixels = [x.numpy() for x, _ in batches(split, run_preprocess(run), 50)]
    return np.concatenate(pixels).astype(np.uint8)


def _photos_of_folder(run: Run, console: Console, folder: Path) -> tuple[list[str], Callable[[], np.ndarray]]:
    """Digests and pixels of at most 200 photos from anywhere in a folder; those that cannot be read are named."""
    from edgecls.data.images import read_all
    from edgecls.data.listing import list_photos

    photos = list_photos(folder)
    if not photos:
        raise MissingError("no photos", where=str(folder), fix="name a folder of images")
    chosen = [photos[i] for i in np.unique(np.linspace(0, len(photos) - 1, LADDER_IMAGES).astype(int))]
    paths, pixels, skipped = read_all(chosen, run_preprocess(run).array)
    if skipped:
        path, reason = skipped[0]
        console.log(f"{len(skipped)} of {len(chosen)} photos left out; the first: {path}: {reason}")
    if not paths:
        raise MissingError("no photo can be read", where=str(folder), fix="name a folder of images")
    return [sha256(path) for path in paths], lambda: np.stack(pixels)
