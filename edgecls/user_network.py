"""The network of a ``.keras`` file that no run made, as one of the zoo: from pixels 0 to 255 to logits, without nesting.

It may be functional or Sequential, a base inside a model, with or without a normalization of its own. What it does not
say itself lies beside it (``edgecls.infer.beside``). Its layers keep their names; where a nested model repeats one, its own
name goes in front. All of its weights train: which do not is for ``train.freeze`` to say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgecls.errors import UsageError
from edgecls.flattening import activation_of, behind, classifier, copied, makes_probabilities, width_of
from edgecls.infer.beside import read_beside
from edgecls.networks import Network
from edgecls.pixels import PIXELS
from edgecls.quiet import import_tensorflow
from edgecls.saving import load_model
from edgecls.text import first_line
from edgecls.zoo import catalog

if TYPE_CHECKING:
    import keras

    from edgecls.data.preprocess import Preprocess

Channels = tuple[list[float], list[float]]


class Flat(NamedTuple):
    """A file's network without nested models.

    Attributes:
        network: From pixels 0 to 255 [batch, size, size, 3], or open sizes, to its scores.
        mean: Of pixel / 255, subtracted inside.
        std: Of pixel / 255, divides inside.
    """

    network: keras.Model
    mean: list[float]
    std: list[float]


def build(section: Network, classes: int, size: int, seed: int = 0) -> tuple[keras.Model, str]:
    """The network of a recipe's section for a number of classes.

    Its classifier is kept where it has as many outputs and ``new_head`` is not set; a softmax behind it is left out.

    Args:
        section: With ``file``.
        classes: Number of classes.
        size: Side of the input, pixels.
        seed: Of a new classifier and of all that is drawn afterwards, however often the file was read before.

    Returns:
        The network, and what became of its classifier, for a person.

    Raises:
        EdgeclsError: The file is not there or no classifier of RGB images, or its input has another size.
    """
    flat = flat_of(section, size)
    import keras

    keras.utils.set_random_seed(seed)
    head = classifier(flat.network)
    outputs = flat.network.output_shape[-1]
    keep = outputs == classes and not getattr(section, "new_head", False)
    tail = behind(flat.network, head)

    def change(copy: Any, layer: Any, inputs: Any) -> Any:
        if layer.name in tail and makes_probabilities(layer):
            return inputs
        if layer.name != head.name:
            return None
        kind = activation_of(layer)
        changes: dict[str, Any] = {"activation": "linear"} if kind in ("softmax", "sigmoid") else {}
        if keep:
            return copy.clone(layer, trainable=True, **changes)(inputs)
        changes[width_of(layer)] = classes
        config = layer.get_config() | changes | {"trainable": True, "dtype": "float32"}
        return type(layer).from_config(config | {"name": copy.name(layer.name)})(inputs)

    try:
        network = copied(flat.network, change=change)
    except ValueError as error:  # a Reshape to the old number of classes
        raise UsageError(
            f"cannot give its classifier {classes} outputs: {first_line(error)}",
            where=str(section.file),
            fix="end the network with a Dense layer",
        ) from None
    if network.output_shape != (None, classes):
        raise UsageError(
            f"cannot give its classifier {classes} outputs: it gives {network.output_shape}",
            where=str(section.file),
            fix="end the network with a Dense layer",
        )
    if keep:
        return network, f"classifier {head.name!r} of {classes} classes kept (new_head: true replaces it)"
    return network, f"new classifier {head.name!r} ({outputs} -> {classes} classes), trained from scratch"


def flat_of(section: Network, size: int) -> Flat:
    """The network of a section's file for a size of the input, with the classifier that it has."""
    path = Path(str(section.file))
    mean, std = getattr(section, "mean", None), getattr(section, "std", None)
    given = None if mean is None or std is None else (tuple(mean), tuple(std))
    beside = path.with_suffix(".json")
    changed = [file.stat().st_mtime_ns for file in (path, beside) if file.is_file()]
    return _flattened(path, tuple(changed), size, given)


def preprocess_of(section: Network, antialias: bool = False, size: int | None = None) -> Preprocess:
    """How a photo becomes the pixels of a recipe's section with ``file``.

    Args:
        section: Its keys win over what lies beside the file.
        antialias: The recipe's ``data.antialias``.
        size: Side of the input; None: the section's ``input_size``, or the network's.

    Raises:
        EdgeclsError: As ``build``, or nothing says which pixels the network takes.
    """
    import_tensorflow()
    from edgecls.data.preprocess import Preprocess

    path = Path(str(section.file))
    settings = read_beside(path).settings
    side = input_side(_load(path), path, size or section.input_size, settings, "model.input_size")
    flat = flat_of(section, side)
    known = dict(settings)
    if "resize_short" in known:  # of an input of the size that stands beside it
        known["resize_short"] = round(known["resize_short"] * side / settings.get("size", side))
    if given := getattr(section, "resize_short", None):
        known["resize_short"] = given
    known |= {"size": side, "mean": flat.mean, "std": flat.std}
    known["antialias"] = antialias or known.get("antialias", False)
    try:
        return Preprocess(**known)
    except (TypeError, ValueError) as error:
        raise UsageError(f"cannot use its preprocessing: {error}", where=str(path)) from None


def check_answers(section: Network, classes: list[str]) -> None:
    """Refuse a file whose scores are not those of the data's classes, for a teacher that is used as it is.

    Raises:
        UsageError: It has other outputs, or labels beside it that are others.
    """
    path = Path(str(section.file))
    outputs, labels = _load(path).output_shape[-1], read_beside(path).labels
    fix = "give one of these classes, or a train section that teaches it"
    if outputs != len(classes):
        what = f"the teacher knows {outputs} classes, the data has {len(classes)}"
        raise UsageError(what, where=str(path), fix=fix)
    if labels is not None and labels != classes:
        odd = next(
            f"{mine!r} where the data has {other!r}"
            for mine, other in zip(labels, classes, strict=False)
            if mine != other
        )
        raise UsageError(f"the teacher has other classes, such as {odd}", where=str(path), fix=fix)


def input_side(
    model: keras.Model, path: Path, wanted: int | None, settings: dict[str, Any], option: str
) -> int:
    """The side of the square input of a classifier.

    Args:
        model: As it was loaded.
        path: Its file, for error texts.
        wanted: The side that is asked for, or None.
        settings: What lies beside the file: a network that leaves its size open may say ``size`` there.
        option: Where ``wanted`` is given, for error texts.

    Raises:
        UsageError: It is no classifier of square RGB images, or takes another size, or nothing says which.
    """
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
    sides = {side or wanted or settings.get("size") for side in shape[1:3]}
    if None in sides:
        raise UsageError("the model leaves its input size open", where=where, fix=f"give {option}")
    if len(sides) > 1:
        raise UsageError(
            f"an input of {' x '.join(map(str, shape[1:3]))} pixels, and photos are cut to squares",
            where=where,
        )
    (size,) = sides
    if wanted not in (None, size):
        raise UsageError(
            f"{path.name} takes {size} x {size} pixels, not {wanted}", where=option, fix="leave it out"
        )
    return int(size)  # type: ignore[arg-type]


def own_normalization(lowered: keras.Model) -> Channels | None:
    """Mean and deviation of pixel / 255 of a lowered network that normalizes pixels 0 to 255 itself; else None."""
    from edgecls.quantize import takes_pixels
    from edgecls.zoo.layers import Normalize

    if not takes_pixels(lowered):
        return None
    first = lowered.layers[1]
    line = first.line if isinstance(first, Normalize) else (first.scale, first.offset)
    scale, offset = (np.broadcast_to(np.array(x, float), 3) for x in line)
    std = 1 / (255 * scale)
    return (-offset * std).tolist(), std.tolist()


def normalization(
    own: Channels | None, given: Channels | None, settings: dict[str, Any], path: Path, option: str, fix: str
) -> Channels:
    """Mean and deviation of pixel / 255 of a network.

    Args:
        own: Those of a network that normalizes itself.
        given: Those that a person gives.
        settings: What lies beside the file.
        path: The file, for error texts.
        option: Where ``given`` is given, for error texts.
        fix: How to give it.

    Raises:
        UsageError: They are given to a network that has its own, or nothing says them.
    """
    if own and given:
        raise UsageError("the model normalizes pixels from 0 to 255 itself", where=option, fix="leave it out")
    if own or given:
        return own or given  # type: ignore[return-value]
    if not {"mean", "std"} <= settings.keys():
        raise UsageError(
            "the model does not normalize pixels, and nothing says which values it takes",
            where=str(path),
            fix=f"{fix}, or mean and std in {path.with_suffix('.json').name}",
        )
    return settings["mean"], settings["std"]


def _load(path: Path) -> keras.Model:
    return _loaded(path, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=2)
def _loaded(path: Path, changed: int) -> keras.Model:
    return load_model(path)


@lru_cache(maxsize=4)
def _flattened(
    path: Path, changed: Sequence[int], size: int, given: tuple[Sequence[float], Sequence[float]] | None
) -> Flat:
    """Read a file's network once for each size."""
    import_tensorflow()
    import keras

    from edgecls.quantize import lower
    from edgecls.zoo.layers import Normalize

    model, settings = _load(path), read_beside(path).settings
    input_side(model, path, size, settings, "model.input_size")
    image = keras.Input((size, size, 3), name="pixels")
    plain = copied(model, (image, image))
    before = _normalized(plain)
    own = own_normalization(lower(keras.Model(plain.input, before))[0]) if before is not None else None
    fix = f"give model.mean and model.std (pixels from 0 to 1: {PIXELS['0..1'][0]} and {PIXELS['0..1'][1]})"
    wanted = ([*given[0]], [*given[1]]) if given else None
    mean, std = normalization(own, wanted, settings, path, "model.mean", fix)
    body = keras.Model(before if own else plain.input, plain.output, name=plain.name)
    image = keras.Input((size, size, 3), name="image")
    network = copied(body, (image, Normalize(mean, std, name="normalize")(image)))
    return Flat(_renamed(network, path), mean, std)


def _normalized(model: keras.Model) -> Any:
    """The last tensor before which a network only normalizes pixels and changes them in training; None: it does not."""
    from keras import layers
    from keras.src.ops import numpy as knp

    from edgecls.graph import trace
    from edgecls.quantize.rules.dropped import CLASSES
    from edgecls.zoo.layers import Normalize

    arithmetic = (knp.Add, knp.Subtract, knp.Multiply, knp.TrueDivide, knp.Divide)
    normalizing = (layers.Rescaling, layers.Normalization, Normalize, *arithmetic)
    graph, found = trace(model), None
    ref = next(op.output for op in graph.ops if not op.inputs)
    while len(users := graph.consumers(ref)) == 1 and isinstance(users[0].layer, (*normalizing, *CLASSES)):
        (op,) = users
        if op.inputs != (ref,):
            break
        if isinstance(op.layer, normalizing):
            found = op.layer.output
        ref = op.output
    return found


def _renamed(model: keras.Model, path: Path) -> keras.Model:
    """The network by the name of its file; its own name where it is the zoo's and it has the zoo's stages."""
    import keras

    from edgecls.stage_layers import stages_of

    if catalog.find(model.name):
        try:
            stages_of(model)
            return model
        except UsageError:
            pass  # of another package that uses the name
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", path.stem).strip("_.-") or "network"
    name = f"{name}_file" if catalog.find(name) else name
    return keras.Model(model.input, model.output, name=name)
