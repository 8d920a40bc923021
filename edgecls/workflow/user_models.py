"""A ``.keras`` file that no run made: its network from pixels to scores, its labels, how photos are cut for it.

What the model does not say itself comes from options or from files beside it (``edgecls.sidecars``); the options win.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecls.errors import UsageError
from edgecls.quiet import import_tensorflow
from edgecls.saving import load_model
from edgecls.sidecars import PIXELS, SETTINGS, read_classes, read_settings

if TYPE_CHECKING:
    import keras

    from edgecls.data.preprocess import Preprocess


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
    lowered: bool = True,
) -> UserModel:
    """Load a model and what is known about it.

    Args:
        path: The ``.keras`` file.
        labels: A file with one label a line; None: the model's JSON file, or class numbers.
        pixels: A key of ``PIXELS``, for a model that does not normalize; None: mean and deviation of the JSON file.
        input_size: Side of the input for a model that leaves it open.
        keep_float: Layers that need no quantization rule.
        lowered: Write the network in the layers that have one, for int8; else its layers stay as they are.

    Raises:
        EdgeclsError: The file is not there or not a classifier of RGB images; a layer has no quantization rule; or
            nothing says how its pixels are normalized.
    """
    model = load_model(path)
    settings = read_settings(path)
    size = _check_shapes(model, path, input_size)
    import_tensorflow()
    import keras

    from edgecls.data.preprocess import Preprocess
    from edgecls.export import heads
    from edgecls.quantize import lower, takes_pixels
    from edgecls.zoo.layers import Normalize

    network = lower(model, size, keep_float)[0] if lowered else keras.Model(model.input, model.output)
    mean, std = _normalization(network, pixels, settings, path)
    start = network.layers[1].output if takes_pixels(network) else network.input
    body, head = heads.split(network)
    image = keras.Input((size, size, 3), name="image")
    scores = keras.Model(start, body.output, name="body")(Normalize(mean, std, name="normalize")(image))
    if head:
        scores = keras.layers.Activation(head, name="scores")(scores)
    network = keras.Model(image, scores, name=model.name)
    classes = _classes(path, labels, model.output_shape[-1])
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


def _normalization(
    network: keras.Model, pixels: str | None, settings: dict[str, Any], path: Path
) -> tuple[list[float], list[float]]:
    """Mean and deviation of pixel / 255: those of the network, if it normalizes itself; else what is said of it."""
    from edgecls.quantize import takes_pixels
    from edgecls.zoo.layers import Normalize

    if takes_pixels(network):
        if pixels:
            raise UsageError(
                "the model normalizes pixels from 0 to 255 itself",
                where="--pixels",
                fix="leave the option out",
            )
        first = network.layers[1]
        line = first.line if isinstance(first, Normalize) else (first.scale, first.offset)
        scale, offset = (np.broadcast_to(np.array(x, float), 3) for x in line)
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
    return settings["mean"], settings["std"]


def _classes(path: Path, labels: Path | None, outputs: int) -> list[str]:
    classes, where = read_classes(path, labels)
    if classes is None:
        return [str(i) for i in range(outputs)]
    if len(classes) != outputs:
        raise UsageError(f"{len(classes)} labels, and the model has {outputs} outputs", where=str(where))
    return classes
