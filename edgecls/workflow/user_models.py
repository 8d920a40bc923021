"""A ``.keras`` file that no run made: its network from pixels to scores, its labels, how photos are cut for it.

What the model does not say itself comes from options or from files beside it (``edgecls.infer.beside``); the options win.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgecls.errors import UsageError
from edgecls.infer.beside import Beside, read_beside
from edgecls.labels import read_labels
from edgecls.pixels import PIXELS
from edgecls.quiet import import_tensorflow
from edgecls.saving import load_model
from edgecls.user_network import input_side, normalization, own_normalization

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
        kept: Names of the network's layers that stay in float because it was asked for.
    """

    path: Path
    network: keras.Model
    classes: list[str]
    preprocess: Preprocess
    kept: tuple[str, ...] = ()


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
        keep_float: Names and shell patterns of layers that stay in float.
        lowered: Write the network in the layers that have one, for int8; else its layers stay as they are.

    Raises:
        EdgeclsError: The file is not there or not a classifier of RGB images; a layer has no quantization rule; or
            nothing says how its pixels are normalized.
    """
    model, beside = load_model(path), read_beside(path)
    size = input_side(model, path, input_size, beside.settings, "--input-size")
    import_tensorflow()
    import keras

    from edgecls.data.preprocess import Preprocess
    from edgecls.export import heads
    from edgecls.graph import trace
    from edgecls.quantize import floats, lower
    from edgecls.zoo.layers import Normalize

    kept = frozenset[str]()
    if lowered:
        network, kept = lower(model, size, keep_float)
        kept = floats.kept_names(model, trace(network), kept, keep_float)
    else:
        network = keras.Model(model.input, model.output)
    own, given = own_normalization(network), PIXELS[pixels] if pixels else None
    fix = f"give --pixels {'|'.join(PIXELS)}"
    mean, std = normalization(own, given, beside.settings, path, "--pixels", fix)
    start = network.layers[1].output if own else network.input
    body, head = heads.split(network)
    image = keras.Input((size, size, 3), name="image")
    scores = keras.Model(start, body.output, name="body")(Normalize(mean, std, name="normalize")(image))
    if head:
        scores = keras.layers.Activation(head, name="scores")(scores)
    network = keras.Model(image, scores, name=model.name)
    classes = _classes(path, labels, beside, model.output_shape[-1])
    try:
        preprocess = Preprocess(**{**beside.settings, "size": size, "mean": mean, "std": std})
    except (TypeError, ValueError) as error:
        raise UsageError(f"cannot use its preprocessing: {error}", where=str(path)) from None
    return UserModel(path, network, classes, preprocess, tuple(sorted(kept)))


def _classes(path: Path, labels: Path | None, beside: Beside, outputs: int) -> list[str]:
    classes = read_labels(labels) if labels else beside.labels or [str(i) for i in range(outputs)]
    if len(classes) != outputs:
        where = str(labels or beside.own or path)
        raise UsageError(f"{len(classes)} labels, and the model has {outputs} outputs", where=where)
    return classes
