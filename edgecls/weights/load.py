"""Put a state ``{name: array}`` into a network and take it out again.

States are kept in PaddlePaddle's form, which the networks' layer names follow: ``<layer>.weight``, ``.bias``,
``._mean`` and ``._variance``; convolutions [out, in / groups, h, w], dense kernels [in, out].
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
from keras import layers

from edgecls.errors import UsageError
from edgecls.weights import readers, sources
from edgecls.weights.readers import State
from edgecls.zoo import catalog
from edgecls.zoo.pplcnet_v2 import DeployKernel

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
    mismatched: list[str] = field(default_factory=list)  # "name: shape in the source, shape in the network"

    def __str__(self) -> str:
        text = f"{len(self.loaded)} of {len(self.loaded) + len(self.missing) + len(self.mismatched)} arrays loaded"
        for what in ("missing", "mismatched", "unexpected"):
            if names := getattr(self, what):
                text += f"; {what}: {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}"
        return text


def load_weights(
    model: keras.Model, source: str | Path | Mapping[str, np.ndarray], strict: bool = False
) -> LoadReport:
    """Load weights into ``model``, in place.

    Args:
        model: A network of ``build_model``; its layer names are the keys.
        source: A ``.pdparams``, ``.pth``, ``.npz`` (of ``state``) or ``.keras`` file; a URL with
            ``#sha256=``; ``"imagenet"`` for what the catalog knows; or a PaddlePaddle state ``{name: array}``.
        strict: Refuse anything but a complete match.

    Returns:
        What was loaded and what was not. A classifier of another class count is left fresh and reported.

    Raises:
        edgecls.errors.UsageError: The weights are of another architecture, or ``strict`` and not a full match.
        edgecls.weights.readers.WeightsError: The file is refused or torn.
    """
    if isinstance(source, Mapping):
        arrays, where, paddle = dict(source), "state", True
    else:
        path = sources.locate(str(source), model.name)
        arrays, where, paddle = _read(path), str(source), path.suffix == ".pdparams"
    return _assign(model, arrays, where, strict, fold=paddle)


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


def _read(path: Path) -> State:
    if path.suffix == ".keras":
        try:
            return state(keras.models.load_model(path, compile=False))
        except (ValueError, TypeError, OSError, zipfile.BadZipFile) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"not a readable .keras model ({reason})", where=str(path)) from error
    reader = readers.READERS.get(path.suffix)
    if reader is None:
        known = " ".join([*readers.READERS, ".keras"])
        raise UsageError("weights of an unknown kind", where=str(path), fix=f"known: {known}")
    return from_torch(reader(path)) if reader is readers.read_torch else reader(path)


def _assign(model: keras.Model, arrays: State, where: str, strict: bool, fold: bool) -> LoadReport:
    scale = _dropout_scale(model) if fold else {}
    report = LoadReport()
    values = []
    for key, layer, variable in _slots(model):
        if key not in arrays:
            report.missing.append(key)
            continue
        value = _from_state(layer, np.asarray(arrays[key]))
        if value.shape != tuple(variable.shape):
            report.mismatched.append(
                f"{key}: {value.shape} in the source, {tuple(variable.shape)} in the network"
            )
            continue
        report.loaded.append(key)
        values.append((variable, value * scale.get(key, np.float32(1))))
    report.unexpected = sorted(set(arrays) - {key for key, _, _ in _slots(model)})
    _refuse_other_architecture(model, report, where, strict)
    # Only now, so that a refused source leaves the network as it was.
    for variable, value in values:
        variable.assign(value)
    return report


def _refuse_other_architecture(model: keras.Model, report: LoadReport, where: str, strict: bool) -> None:
    """Only the classifier may differ: a backbone that fits in part would be wrong in silence."""
    heads = {"embedding", *[layer.name for layer in model.layers if hasattr(layer, "kernel")][-1:]}
    if len(model.outputs) > 1 or len(model.outputs[0].shape) > 2:
        heads = set()  # feature maps
    differ = report.missing + report.mismatched
    if heads or differ:  # a headless feature extractor that found all its own arrays may leave others over
        differ = differ + report.unexpected
    wrong = [text for text in differ if strict or text.split(":")[0].rpartition(".")[0] not in heads]
    if wrong:
        reason = f"these weights are not {model.name}'s ({len(wrong)} arrays differ, first {wrong[0]})"
        raise UsageError(reason, where=where, fix="check the model's name")


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
        elif isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D | layers.Dense | DeployKernel):
            named = {"weight": layer.kernel, "bias": layer.bias}
        else:
            continue
        name = layer.name.replace(">", "/")  # which Keras does not allow
        yield from ((f"{name}.{part}", layer, v) for part, v in named.items() if v is not None)


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
    return source.input.shape[1:] if isinstance(source, layers.Flatten) else None


def _dropout_scale(model: keras.Model) -> dict[str, np.float32]:
    """Factors that PaddlePaddle's dropout applies to features at inference, for the kernels that read them.

    Keras' dropout is the identity at inference, so the factor moves into the kernel (not into its bias).
    """
    if model.name not in catalog.names():
        return {}
    entry = catalog.get(model.name)
    return {f"{layer}.weight": np.float32(1 - entry.dropout) for layer in entry.dropout_scales}
