"""Networks that no run made: of ONNX files to ``.keras`` and ``.tflite``, and back, compared with onnxruntime."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from edgecls.console import Console
from edgecls.data.preprocess import Preprocess
from edgecls.errors import EdgeclsError, UsageError
from edgecls.files import atomic
from edgecls.infer.beside import read_beside
from edgecls.labels import check_labels, read_labels
from edgecls.pixels import PIXELS
from edgecls.quiet import import_tensorflow
from edgecls.workflow.quantizing import Request, read_photos
from edgecls.workflow.user_models import UserModel, read_user_model

if TYPE_CHECKING:
    from edgecls.weights.translate.graph import Graph

LIMIT = 1e-4
"""Of the outputs' range, between onnxruntime and the files."""
MADE_UP = 8
PHOTO_KEYS = ("resize_short", "interpolation", "antialias")


@dataclass(frozen=True)
class Conversion:
    """What ``edgecls convert NET.onnx`` was asked for.

    Attributes:
        source: The ``.onnx`` file.
        output: The ``.keras`` file; None: of the source's name, in the current folder.
        pixels: A key of ``edgecls.pixels.PIXELS``, or None.
        bgr: The network takes blue first.
        labels: A file with one label a line, or None.
        input_size: Side of the input, for a network that leaves it open.
        data: A folder of photos to compare on; None: made-up images.
        images: The most photos to compare on.
    """

    source: Path
    output: Path | None = None
    pixels: str | None = None
    bgr: bool = False
    labels: Path | None = None
    input_size: int | None = None
    data: Path | None = None
    images: int = 40


def convert_onnx(request: Conversion, console: Console) -> dict[str, Any]:
    """Write a network of an ONNX file as ``NET.keras``, with ``NET.json`` beside it, and as ``NET.fp32.tflite``.

    Both take pixels from 0 to 255 and normalize inside. No file is left where one of them computes something else than
    onnxruntime does with the ONNX file.

    Args:
        request: What is wanted. What it leaves open is read from the JSON file beside the source, else from the
            source's metadata.
        console: Is told what happens.

    Returns:
        ``{"schema", "source", "files", "classes", "input_size", "images", "difference"}``; ``difference`` of each file
        from onnxruntime, as a part of the outputs' range.

    Raises:
        EdgeclsError: The file cannot be read or translated, something about it is not known, or the result differs.
    """
    keras_file = request.output or Path(f"{request.source.stem}.keras")
    if keras_file.suffix != ".keras":
        raise UsageError("the output must end in .keras", where=str(keras_file))
    from edgecls.weights.translate import graph as graphs

    graph = graphs.read(request.source, request.input_size)
    preprocess, labels = _described(request, graph)
    import_tensorflow()
    from edgecls.export.tflite import to_tflite
    from edgecls.weights.translate.network import translate

    network = translate(graph, preprocess.mean, preprocess.std, request.bgr)
    classes = labels or [str(i) for i in range(network.output_shape[-1])]
    if len(classes) != network.output_shape[-1]:
        raise UsageError(
            f"{len(classes)} labels, and the network has {network.output_shape[-1]} outputs",
            where=str(request.labels or request.source),
        )
    user = UserModel(keras_file, network, classes, preprocess)
    pixels = _images(request, user, console)
    expect = _by_onnxruntime(graph, pixels, preprocess, request.bgr)
    files = {
        "keras": keras_file,
        "json": keras_file.with_suffix(".json"),
        "tflite": keras_file.with_suffix(".fp32.tflite"),
    }
    with atomic(files["keras"]) as model, atomic(files["json"]) as facts, atomic(files["tflite"]) as tflite:
        network.save(model)
        facts.write_text(json.dumps(_facts(user), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        to_tflite(network, tflite, "fp32", classes, preprocess)
        difference = {"keras": _difference(_by_keras(model, pixels), expect, request.source, "Keras")}
        difference["tflite"] = _difference(_by_tflite(tflite, pixels), expect, request.source, "TFLite")
    return {
        "schema": "edgecls.convert_onnx/1",
        "source": str(request.source),
        "files": {kind: str(path) for kind, path in files.items()},
        "classes": len(classes),
        "input_size": graph.size,
        "images": {"count": len(pixels), "real": request.data is not None},
        "difference": difference,
    }


def export_onnx(request: Request, console: Console) -> dict[str, Any]:
    """Write a ``.keras`` file as ONNX, compared with onnxruntime on photos: ``mine.onnx`` of ``mine.keras``.

    Args:
        request: Its ``model``, ``data``, ``labels``, ``pixels``, ``input_size``, ``images`` and ``folder``.
        console: Is told what happens.

    Returns:
        ``{"schema", "model", "files": {"onnx": path}, "images", "difference"}``; ``difference`` as ``to_onnx`` returns it.

    Raises:
        EdgeclsError: The model or the photos cannot be used, or the file computes something else.
    """
    from edgecls.export.onnx import to_onnx
    from edgecls.weights.translate.graph import require_packages

    require_packages("tf2onnx")
    user = read_user_model(request.model, request.labels, request.pixels, request.input_size, lowered=False)
    photos, path = read_photos(request, user, console), request.file(".onnx")
    difference = to_onnx(user.network, path, user.classes, user.preprocess.to_dict(), photos.pixels)
    console.log(f"onnx: within {difference:.1g} of the outputs' range of Keras on {len(photos.files)} photos")
    return {
        "schema": "edgecls.export_file/1",
        "model": str(request.model),
        "files": {"onnx": str(path)},
        "images": len(photos.files),
        "difference": difference,
    }


def _described(request: Conversion, graph: Graph) -> tuple[Preprocess, list[str] | None]:
    """Preprocessing and labels: from the options, else the JSON file beside the source, else the source's metadata."""
    from edgecls.weights.translate import graph as graphs

    beside, own = read_beside(request.source), graphs.preprocess(graph.metadata)
    settings = {key: own[key] for key in PHOTO_KEYS if key in own}
    settings |= {key: beside.settings[key] for key in PHOTO_KEYS if key in beside.settings}
    if request.pixels:
        mean, std = PIXELS[request.pixels]
    elif beside.own and {"mean", "std"} <= beside.settings.keys():
        mean, std = beside.settings["mean"], beside.settings["std"]
    elif own:  # of edgecls: its networks normalize inside
        mean, std = PIXELS["0..255"]
    else:
        raise UsageError(
            "nothing says which values of pixels it takes",
            where=str(request.source),
            fix=f"give --pixels {'|'.join(PIXELS)}, or mean and std in {request.source.with_suffix('.json').name}",
        )
    try:
        preprocess = Preprocess(**{**settings, "size": graph.size, "mean": mean, "std": std})
    except (TypeError, ValueError) as error:
        raise UsageError(f"cannot use its preprocessing: {error}", where=str(request.source)) from None
    if request.labels:
        return preprocess, read_labels(request.labels)
    labels = beside.labels or graphs.labels(graph.metadata)
    check_labels(labels or [], str(request.source))
    return preprocess, labels


def _facts(user: UserModel) -> dict[str, Any]:
    """The content of the JSON file beside the model: what ``infer.beside`` reads."""
    return {"labels": user.classes, **user.preprocess.to_dict()}


def _images(request: Conversion, user: UserModel, console: Console) -> np.ndarray:
    """What the network is compared on, uint8 [N, size, size, 3]."""
    if request.data:
        photos = read_photos(Request(request.source, request.data, images=request.images), user, console)
        return photos.pixels
    console.log(f"compared on {MADE_UP} made-up images; give --data PHOTOS to compare on real ones")
    random, size = np.random.default_rng(0), user.preprocess.size
    coarse = random.integers(0, 256, (MADE_UP, 9, 9, 3), np.uint8)
    return np.stack([cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC) for image in coarse])


def _by_onnxruntime(graph: Graph, pixels: np.ndarray, preprocess: Preprocess, bgr: bool) -> np.ndarray:
    """The scores that the ONNX file gives, [N, classes]."""
    from edgecls.weights.translate.graph import session

    run = session(graph.content, graph.path)
    (image,) = run.get_inputs()
    taken = ((pixels / 255 - preprocess.mean) / preprocess.std).astype(np.float32)
    taken = taken[..., ::-1] if bgr else taken
    taken = taken if graph.channels_last else taken.transpose(0, 3, 1, 2)
    return np.concatenate([run.run(None, {image.name: one[None]})[0].reshape(1, -1) for one in taken])


def _by_keras(path: Path, pixels: np.ndarray) -> np.ndarray:
    from edgecls.saving import load_model

    return load_model(path).predict(pixels.astype(np.float32), batch_size=8, verbose=0)


def _by_tflite(path: Path, pixels: np.ndarray) -> np.ndarray:
    from edgecls.export.inspect import Runner

    return Runner(path).outputs(pixels)


def _difference(found: np.ndarray, expect: np.ndarray, source: Path, kind: str) -> float:
    """The largest difference as a part of the outputs' range.

    Raises:
        EdgeclsError: It is above ``LIMIT``.
    """
    difference = float(np.abs(found - expect).max() / max(float(np.ptp(expect)), 1e-30))
    if not difference <= LIMIT:
        raise EdgeclsError(
            f"{kind} is {difference:.2g} of the outputs' range off onnxruntime, and {LIMIT:g} is the limit",
            where=str(source),
        )
    return difference
