"""Put a state ``{name: array}`` into a network and take it out again.

States are kept in PaddlePaddle's form, which the networks' layer names follow: ``<layer>.weight``, ``.bias``,
``._mean`` and ``._variance``; convolutions [out, in / groups, h, w], dense kernels [in, out].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
from keras import layers

from edgecls.errors import UsageError
from edgecls.weights import formats, program, readers, sources
from edgecls.weights.readers import State
from edgecls.zoo import catalog
from edgecls.zoo.pplcnet_v2 import DeployKernel
from edgecls.zoo.vit import Tokens

# PyTorch's names for EfficientNet-Lite. Its norms are numbered anew inside every block.
TORCH_TOP = {
    "_conv_stem": "stem.conv",
    "_bn0": "stem.bn",
    "_blocks": "blocks",
    "_conv_head": "head.conv",
    "_bn1": "head.bn",
    "_fc": "fc",
}
TORCH_BLOCK = {
    "_blocks": "blocks",
    "_expand_conv": "expand.conv",
    "_bn0": "expand.bn",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.bn",
    "_project_conv": "project.conv",
    "_bn2": "project.bn",
}
TORCH_STATISTICS = {"running_mean": "_mean", "running_var": "_variance"}


@dataclass
class LoadReport:
    """What a load did, by state names."""

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # the network has them, the source does not: left fresh
    unexpected: list[str] = field(default_factory=list)  # the source has them, the network does not
    unused: list[str] = field(default_factory=list)  # likewise, but only training needs them: never an error
    mismatched: list[str] = field(default_factory=list)  # "name: shape in the source, shape in the network"

    def __str__(self) -> str:
        text = f"{len(self.loaded)} of {len(self.loaded) + len(self.missing) + len(self.mismatched)} arrays loaded"
        for what in ("missing", "mismatched", "unexpected", "unused"):
            if names := getattr(self, what):
                text += f"; {what}: {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}"
        return text


@dataclass(frozen=True)
class Weights:
    """Arrays by the network's state names.

    Args:
        arrays: Those that the network has, and others by their names in the source.
        where: The source, for messages.
        native: Kernels are in Keras' layouts, not in PaddlePaddle's.
        scale: Factors of kernels, see ``_dropout_scale``.
    """

    arrays: State
    where: str
    native: bool = False
    scale: Mapping[str, float] = field(default_factory=dict)


def load_weights(
    model: keras.Model, source: str | Path | Mapping[str, np.ndarray], strict: bool = False
) -> LoadReport:
    """Load weights into ``model``, in place.

    Args:
        model: A network of ``build_model``; its layer names are the keys.
        source: A file (see ``formats.SUFFIXES``); a URL with ``#sha256=``; ``"imagenet"`` for what the catalog knows; or a
            PaddlePaddle state ``{name: array}``.
        strict: Refuse anything but a complete match.

    Returns:
        What was loaded and what was not. A classifier of another class count is left fresh and reported.

    Raises:
        edgecls.errors.UsageError: The weights are of another architecture, or ``strict`` and not a full match.
        edgecls.weights.readers.WeightsError: The file is refused or torn.
    """
    return assign(model, read(model, source), strict)


def read(model: keras.Model, source: str | Path | Mapping[str, np.ndarray]) -> Weights:
    """Read weights for ``model`` without changing it; arguments and errors are those of ``load_weights``."""
    if isinstance(source, Mapping):
        return Weights(dict(source), "state", scale=_dropout_scale(model))
    path, where = sources.locate(str(source), model.name), str(source)
    if path.suffix in formats.PROGRAMS:
        arrays, scale = _from_program(model, *formats.PROGRAMS[path.suffix](path))
        return Weights(arrays, where, scale=scale)
    if path.suffix in formats.NATIVE:
        return Weights(_from_keras(model, formats.NATIVE[path.suffix](path)), where, native=True)
    reader = formats.READERS[path.suffix]
    arrays = from_torch(reader(path)) if reader is readers.read_torch else reader(path)
    return Weights(arrays, where, scale=_dropout_scale(model) if path.suffix == ".pdparams" else {})


def state(model: keras.Model) -> State:
    """The network's weights as ``{state name: array}``, for ``np.savez`` or for another network."""
    return {key: _to_state(layer, variable.numpy()) for key, layer, variable in _slots(model)}


def state_shapes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    """The shapes of ``state``, also of a network that was built without values."""
    return {
        key: _to_state(layer, np.broadcast_to(np.float32(0), variable.shape)).shape
        for key, layer, variable in _slots(model)
    }


def from_torch(arrays: State) -> State:
    """A PyTorch EfficientNet-Lite state with this package's names and layouts."""
    result = {}
    for key, value in arrays.items():
        parts = key.split(".")
        table = (TORCH_BLOCK if parts[0] == "_blocks" else TORCH_TOP) | TORCH_STATISTICS
        if parts[-1] != "num_batches_tracked":
            result[".".join(table.get(part, part) for part in parts)] = value.T if value.ndim == 2 else value
    return result


def _from_keras(model: keras.Model, arrays: State) -> State:
    """Arrays of ``{"layer/variable": array}`` by state names."""
    names, count = {}, Counter[str]()
    for key, layer, variable in _slots(model):
        # Keras 3 numbers variables, Keras 2 names them, and some it named otherwise.
        for name in (count[layer.name], variable.name, f"depthwise_{variable.name}"):
            names[f"{layer.name}/{name}"] = key
        count[layer.name] += 1
    return {names.get(name, name): value for name, value in arrays.items()}


def _from_program(
    model: keras.Model, ops: Iterable[program.Op], arrays: State
) -> tuple[State, dict[str, float]]:
    """Arrays of a program by state names, and the factors that its dropouts apply to what kernels read."""
    prefixes, ours = _nodes(model)
    theirs = program.nodes(ops, arrays)
    names: dict[str, str] = {}
    scale: dict[str, float] = {}
    for i, j in program.match(ours, theirs, classifier=bool(classifiers(model))).items():
        names |= {name: f"{prefixes[i]}.{part}" for part, name in theirs[j].arrays.items()}
        scale[f"{prefixes[i]}.weight"] = theirs[j].factor
    return {names.get(name, name): value for name, value in arrays.items()}, scale


def _nodes(model: keras.Model) -> tuple[list[str], list[program.Node]]:
    """The layers with weights, in order of execution: their state names' first part, their place in the graph."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    names = {}
    for key, layer, variable in _slots(model):
        names[layer.name], _, part = key.rpartition(".")
        array = np.broadcast_to(np.float32(0), variable.shape)
        shapes.setdefault(layer.name, {})[part] = _to_state(layer, array).shape
    prefixes: list[str] = []
    found: list[program.Node] = []
    came: dict[str, program.Origin] = {}  # operation: where its result comes from
    for operation in model.operations:
        inputs = [t._keras_history.operation.name for t in keras.tree.flatten(operation.input)]
        known = [came[name] for name in inputs if name in came]
        before = program.origin(known, isinstance(operation, layers.Concatenate))
        if operation.name in shapes:
            prefixes.append(names[operation.name])
            found.append(program.Node(shapes[operation.name], before, {}))
            before = program.Origin({(len(found) - 1, ())})
        came[operation.name] = before
    return prefixes, found


def assign(model: keras.Model, weights: Weights, strict: bool = False) -> LoadReport:
    """Put what ``read`` has read into ``model``; see ``load_weights``."""
    report = LoadReport()
    values = []
    for key, layer, variable in _slots(model):
        if key not in weights.arrays:
            report.missing.append(key)
            continue
        value = np.asarray(weights.arrays[key])
        if not weights.native:
            value = _from_state(layer, value)
        if value.shape != tuple(variable.shape):
            report.mismatched.append(
                f"{key}: {value.shape} in the source, {tuple(variable.shape)} in the network"
            )
            continue
        report.loaded.append(key)
        values.append((variable, value * np.float32(weights.scale.get(key, 1))))
    for key in sorted(set(weights.arrays) - {key for key, _, _ in _slots(model)}):
        spare = key.rpartition(".")[0] in _auxiliary(model)
        (report.unused if spare else report.unexpected).append(key)
    _refuse_other_architecture(model, report, weights.where, strict)
    # Only now, so that a refused source leaves the network as it was.
    for variable, value in values:
        variable.assign(value)
    return report


def _refuse_other_architecture(model: keras.Model, report: LoadReport, where: str, strict: bool) -> None:
    """Only the classifier may differ: a backbone that fits in part would be wrong in silence."""
    heads = classifiers(model)
    differ = report.missing + report.mismatched
    if heads or differ:  # a headless feature extractor that found all its own arrays may leave others over
        differ = differ + report.unexpected
    wrong = [text for text in differ if strict or text.split(":")[0].rpartition(".")[0] not in heads]
    if wrong:
        kinds = {what: len(getattr(report, what)) for what in ("missing", "mismatched", "unexpected")}
        counts = ", ".join(f"{count} {what}" for what, count in kinds.items() if count)
        reason = f"these weights are not {model.name}'s ({counts}; first {wrong[0]})"
        raise UsageError(reason, where=where, fix="check the model's name")


def classifiers(model: keras.Model) -> set[str]:
    """State names of the layers that make logits, auxiliary ones too; none where the model makes feature maps."""
    if len(model.outputs[0].shape) > 2:
        return set()
    heads, tensors = {"embedding", "dist.embedding", *_auxiliary(model)}, list(model.outputs)
    while tensors:
        layer = tensors.pop()._keras_history.operation
        if layer.weights:
            heads.add(state_name(layer))
        else:
            tensors += keras.tree.flatten(layer.input)
    return heads


def _auxiliary(model: keras.Model) -> tuple[str, ...]:
    """State names of the layers that only training uses, whether ``model`` has them or not."""
    return catalog.get(model.name).auxiliary if model.name in catalog.names() else ()


def _slots(model: keras.Model) -> Iterator[tuple[str, keras.layers.Layer, keras.Variable]]:
    """Every variable with its state name and its layer."""
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, layers.BatchNormalization):
            named = {
                "weight": layer.gamma,
                "bias": layer.beta,
                "_mean": layer.moving_mean,
                "_variance": layer.moving_variance,
            }
        elif isinstance(layer, layers.LayerNormalization):
            named = {"weight": layer.gamma, "bias": layer.beta}
        elif isinstance(layer, Tokens):
            yield from ((variable.name, layer, variable) for variable in layer.weights)
            continue
        elif isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D | layers.Dense | DeployKernel):
            named = {"weight": layer.kernel, "bias": layer.bias}
        else:
            continue
        yield from ((f"{state_name(layer)}.{part}", layer, v) for part, v in named.items() if v is not None)


def state_name(layer: keras.layers.Layer) -> str:
    """What the originals call the layer: TensorFlow allows no underscore in front of its name, Keras no slash in it."""
    return str(layer.name.removeprefix(".").replace(">", "/"))


def _from_state(layer: keras.layers.Layer, value: np.ndarray) -> np.ndarray:
    if value.ndim == 4:
        # [out, in / groups, h, w] -> [h, w, in / groups, out]; a depthwise [channels, 1, h, w] -> [h, w, channels, 1].
        return value.transpose((2, 3, 0, 1) if _depthwise(layer) else (2, 3, 1, 0))
    if value.ndim == 2 and (shape := _flattened(layer)):
        height, width, channels = shape
        if len(value) == height * width * channels:
            rows = value.reshape(channels, height, width, -1)
            return rows.transpose(1, 2, 0, 3).reshape(value.shape)
    return value


def _to_state(layer: keras.layers.Layer, value: np.ndarray) -> np.ndarray:
    if value.ndim == 4:
        return value.transpose((2, 3, 0, 1) if _depthwise(layer) else (3, 2, 0, 1))
    if value.ndim == 2 and (shape := _flattened(layer)):
        return value.reshape(*shape, -1).transpose(2, 0, 1, 3).reshape(value.shape)
    return value


def _depthwise(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, layers.DepthwiseConv2D | DeployKernel)


def _flattened(layer: keras.layers.Layer) -> tuple[int, int, int] | None:
    """Height, width and channels of the map whose cells are the rows of a dense kernel; states have channels first."""
    source = layer.input._keras_history.operation
    if isinstance(source, layers.Dropout):
        source = source.input._keras_history.operation
    if not isinstance(source, layers.Flatten) or len(source.input.shape) != 4:
        return None
    return source.input.shape[1:]


def _dropout_scale(model: keras.Model) -> dict[str, float]:
    """Factors that PaddlePaddle's dropout applies to features at inference, for the kernels that read them.

    Keras' dropout is the identity at inference, so the factor moves into the kernel (not into its bias).
    """
    if model.name not in catalog.names():
        return {}
    scales = catalog.get(model.name).dropout_scales
    return {f"{layer}.weight": factor for layer, factor in scales.items()}
