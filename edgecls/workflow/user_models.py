"""A ``.keras`` file that no run made: its network from pixels to scores, its labels, how photos are cut for it.

What the model does not say itself comes from options or from a JSON file of the same name beside it, ``mine.json`` for
``mine.keras``; the options win::

    {"labels": ["cat", "dog"], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "resize_short": 256}

Its keys are ``labels`` and those of ``preprocess.json``. The files ``labels.txt`` and ``preprocess.json`` of a run folder
are read too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecls.errors import UsageError
from edgecls.files import read_json
from edgecls.labels import check_labels, read_labels
from edgecls.quiet import import_tensorflow
from edgecls.saving import load_model

if TYPE_CHECKING:
    import keras

    from edgecls.data.preprocess import Preprocess

# Ranges of pixels that networks without a normalization take, as the mean and the deviation that lead to them.
PIXELS: dict[str, tuple[list[float], list[float]]] = {
    "0..255": ([0.0] * 3, [1 / 255] * 3),
    "0..1": ([0.0] * 3, [1.0] * 3),
    "-1..1": ([127.5 / 255] * 3, [127.5 / 255] * 3),
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}
SETTINGS = ("resize_short", "interpolation", "mean", "std", "antialias")


@dataclass(frozen=True)
class UserModel:
    """A classifier that takes pixels.

    Attributes:
        path: The file.
        network: From pixels 0 to 255 [batch, size, size, 3] to scores [batch, classes]. It normalizes inside.
        classes: A label for each score.
        preprocess: How a photo becomes its pixels.
    """

    path: Path
    network: keras.Model
    classes: list[str]
    preprocess: Preprocess


def read_user_model(
    path: Path,
    labels: Path | None = None,
    pixels: str | None = None,
    input_size: int | None = None,
    keep_float: Sequence[str] = (),
) -> UserModel:
    """Load a model and what is known about it.

    Args:
        path: The ``.keras`` file.
        labels: A file with one label a line; None: the model's JSON file, or class numbers.
        pixels: A key of ``PIXELS``, for a model that does not normalize; None: mean and deviation of the JSON file.
        input_size: Side of the input for a model that leaves it open.
        keep_float: Layers that need no quantization rule.

    Raises:
        EdgeclsError: The file is not there or not a classifier of RGB images; a layer has no quantization rule; or
            nothing says how its pixels are normalized.
    """
    model = load_model(path)
    settings = _settings(path)
    size = _check_shapes(model, path, input_size)
    import_tensorflow()
    import keras

    from edgecls.data.preprocess import Preprocess
    from edgecls.export import heads
    from edgecls.quantize import lower, takes_pixels
    from edgecls.zoo.layers import Normalize

    network, _ = lower(model, size, keep_float)
    mean, std = _normalization(network, pixels, settings, path)
    start = network.layers[1].output if takes_pixels(network) else network.input
    body, head = heads.split(network)
    image = keras.Input((size, size, 3), name="image")
    scores = keras.Model(start, body.output, name="body")(Normalize(mean, std, name="normalize")(image))
    if head:
        scores = keras.layers.Activation(head, name="scores")(scores)
    network = keras.Model(image, scores, name=model.name)
    classes = _classes(path, labels, settings, model.output_shape[-1])
    known = {key: settings[key] for key in SETTINGS if key in settings}
    try:
        preprocess = Preprocess(**{**known, "size": size, "mean": mean, "std": std})
    except (TypeError, ValueError) as error:
        raise UsageError(f"cannot use its preprocessing: {error}", where=str(path)) from None
    return UserModel(path, network, classes, preprocess)


def _check_shapes(model: keras.Model, path: Path, input_size: int | None) -> int:
    """The side of the square input."""
    where = str(path)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UsageError(
            f"{len(model.inputs)} inputs and {len(model.outputs)} outputs, and a classifier has one of each",
            where=where,
            fix="save keras.Model(one input, one output)",
        )
    shape, outputs = tuple(model.input_shape), tuple(model.output_shape)
    if len(shape) != 4 or shape[3] != 3 or len(outputs) != 2 or outputs[1] is None:
        raise UsageError(
            f"not a classifier of RGB images: it maps {list(shape)} to {list(outputs)}",
            where=where,
            fix="it must map [batch, height, width, 3] to [batch, classes]",
        )
    sides = {side or input_size for side in shape[1:3]}
    if None in sides:
        raise UsageError("the model leaves its input size open", where=where, fix="give --input-size PIXELS")
    if len(sides) > 1:
        raise UsageError(
            f"an input of {' x '.join(map(str, shape[1:3]))} pixels, and photos are cut to squares",
            where=where,
        )
    (size,) = sides
    if input_size not in (None, size):
        raise UsageError(
            f"the model takes {size} x {size} pixels", where="--input-size", fix="leave the option out"
        )
    return int(size)  # type: ignore[arg-type]


def _settings(path: Path) -> dict[str, Any]:
    """What the JSON file beside the model says, or ``preprocess.json``."""
    own, of_run = path.with_suffix(".json"), path.parent / "preprocess.json"
    if own.is_file():
        settings = read_json(own)
        unknown = set(settings) - {*SETTINGS, "labels", "size"} if isinstance(settings, dict) else None
        if unknown is None or unknown:
            raise UsageError(
                f"unknown key {min(unknown)!r}" if unknown else "not a JSON object",
                where=str(own),
                fix=f"keys are labels, {', '.join(SETTINGS)}",
            )
        return settings
    return read_json(of_run) if of_run.is_file() else {}


def _normalization(
    network: keras.Model, pixels: str | None, settings: dict[str, Any], path: Path
) -> tuple[list[float], list[float]]:
    """Mean and deviation of pixel / 255: those of the network, if it normalizes itself; else what is said of it."""
    from edgecls.quantize import takes_pixels

    if takes_pixels(network):
        if pixels:
            raise UsageError(
                "the model normalizes pixels from 0 to 255 itself",
                where="--pixels",
                fix="leave the option out",
            )
        first = network.layers[1]
        scale, offset = (np.broadcast_to(np.array(x, float), 3) for x in (first.scale, first.offset))
        std = 1 / (255 * scale)
        return (-offset * std).tolist(), std.tolist()
    if pixels:
        return PIXELS[pixels]
    if not {"mean", "std"} <= settings.keys():
        raise UsageError(
            "the model does not normalize pixels, and nothing says which values it takes",
            where=str(path),
            fix=f"give --pixels {'|'.join(PIXELS)}, or mean and std in {path.with_suffix('.json').name}",
        )
    mean, std = settings["mean"], settings["std"]
    numbers = all(
        isinstance(values, list) and len(values) == 3 and all(isinstance(v, int | float) for v in values)
        for values in (mean, std)
    )
    if not numbers or not all(value > 0 for value in std):
        raise UsageError(
            "mean and std must be three numbers each, std above 0", where=str(path.with_suffix(".json"))
        )
    return mean, std


def _classes(path: Path, labels: Path | None, settings: dict[str, Any], outputs: int) -> list[str]:
    beside = path.parent / "labels.txt"
    where = labels or (path.with_suffix(".json") if "labels" in settings else beside)
    if labels or ("labels" not in settings and beside.is_file()):
        classes = read_labels(where)
    else:
        classes = [str(label) for label in settings.get("labels", range(outputs))]
        check_labels(classes, str(where))
    if len(classes) != outputs:
        raise UsageError(f"{len(classes)} labels, and the model has {outputs} outputs", where=str(where))
    return classes
