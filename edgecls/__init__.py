"""edgecls: image classification for phones, from photographs to a verified int8 TFLite model.

Importing the package does not import TensorFlow; building or loading a network does. Once it is imported,
``keras.models.load_model`` opens the networks that edgecls saves.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecls.deep import allow_deep_networks as _allow_deep_networks
from edgecls.onednn import prefer_onednn as _prefer_onednn
from edgecls.saving import register_layers as _register_layers

if TYPE_CHECKING:
    import keras
    import numpy as np

    from edgecls import augment
    from edgecls.weights.load import LoadReport
    from edgecls.zoo.entry import Entry

__all__ = [
    "augment",
    "build_model",
    "fuse",
    "list_models",
    "load_model",
    "load_weights",
    "model_cost",
    "model_info",
    "stages",
]

_prefer_onednn()
_allow_deep_networks()
_register_layers()


def list_models(pattern: str = "*") -> list[str]:
    """Names of the zoo that match a shell pattern, in the catalog's order; case is ignored.

    Example:
        >>> edgecls.list_models("MobileNetV3_large*")[:2]
        ['MobileNetV3_large_x0_35', 'MobileNetV3_large_x0_5']
    """
    from edgecls.zoo import catalog

    return catalog.names(pattern)


def model_info(name: str) -> Entry:
    """Parameters, MACs, evaluation preprocessing and published figures of a network, without building it.

    Args:
        name: A name of ``list_models()``.

    Raises:
        edgecls.zoo.catalog.UnknownModelError: No network has this name; the text has similar names.

    Example:
        >>> info = edgecls.model_info("ResNet50_vd")
        >>> info.input_size, info.params, info.top1
        (224, 25576264, 0.791)
    """
    from edgecls.zoo import catalog

    return catalog.get(name)


def model_cost(name: str, input_size: int | None = None, classes: int = 1000) -> dict[str, int]:
    """What one image costs at any input size. It is counted from the network's layers; no weights are made.

    Args:
        name: A name of ``list_models()``.
        input_size: Height and width in pixels; the network's own by default.
        classes: Number of logits.

    Returns:
        ``params``, ``macs`` (multiply-accumulates of convolutions and dense layers), ``memory_access`` (scalars they
        read and write) and ``peak_activations`` (most scalars of feature maps alive at once).

    Raises:
        edgecls.zoo.catalog.UnknownModelError: No network has this name.
        ValueError: An argument is out of its range.

    Example:
        >>> edgecls.model_cost("MobileNetV3_small_x0_35", input_size=96)["macs"]
        3716728
    """
    from edgecls.zoo import cost

    with cost.without_values():
        model = build_model(name, classes, input_size, auxiliary=True)
    return {key: count(model) for key, count in cost.COSTS.items()}


def build_model(
    name: str,
    classes: int = 1000,
    input_size: int | None = None,
    weights: str | Path | Mapping[str, np.ndarray] | None = None,
    *,
    dropout: float | None = None,
    embedding_dim: int | None = None,
    include_preprocessing: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    features: bool | Sequence[str] = False,
    auxiliary: bool = False,
) -> keras.Model:
    """Build a network: a functional Keras 3 model from RGB [batch, size, size, 3] to logits [batch, classes].

    Args:
        name: A name of ``list_models()``.
        classes: Number of logits.
        input_size: Height and width in pixels; the network's own by default.
        weights: What ``load_weights`` takes, or None for fresh weights.
        dropout: Rate before the classifier; the network's own by default.
        embedding_dim: Width of a linear layer before the classifier.
        include_preprocessing: Take pixels 0..255 and normalize them inside.
        mean: Channel means for that, as fractions of 255; the network's own by default.
        std: Channel standard deviations for that, likewise.
        features: The network returns ``{"stride_4": map, ...}`` instead of logits. Each map is
            [batch, height, width, channels]. Transformers have one map, at the stride of their patches. A list of names
            chooses maps, or outputs of layers.
        auxiliary: The network returns a list of logits, the main ones first, if it has classifiers that only training
            uses (GoogLeNet, from about 90 pixels on).

    Raises:
        edgecls.zoo.catalog.UnknownModelError: No network has this name.
        ValueError: An argument is out of its range.
        edgecls.errors.EdgeclsError: The weights cannot be had or do not fit.

    Example:
        >>> model = edgecls.build_model("MobileNetV3_small_x0_35", classes=3, input_size=64)
        >>> model.input_shape, model.output_shape
        ((None, 64, 64, 3), (None, 3))
        >>> maps = edgecls.build_model("MobileNetV3_small_x0_35", input_size=64, features=True)
        >>> maps.output["stride_8"].shape
        (None, 8, 8, 8)
    """
    from edgecls import zoo

    model = zoo.build_model(
        name,
        classes,
        input_size,
        dropout=dropout,
        embedding_dim=embedding_dim,
        include_preprocessing=include_preprocessing,
        mean=mean,
        std=std,
        features=features,
        auxiliary=auxiliary,
    )
    if weights is not None:
        load_weights(model, weights)
    return model


def load_model(path: str | Path) -> keras.Model:
    """Load a network that was saved as ``.keras``, for example a run's ``float.keras`` or ``qat.keras``.

    ``keras.models.load_model`` opens the same files once edgecls is imported.

    Args:
        path: The file.

    Returns:
        The network, not compiled: pixels 0..255 [batch, size, size, 3] to logits [batch, classes].

    Raises:
        edgecls.errors.MissingError: There is no such file.
        edgecls.errors.UsageError: The file is torn, or names layers that neither Keras nor edgecls has.

    Example:
        >>> model = edgecls.build_model("MobileNetV3_small_x0_35", classes=3, input_size=32)
        >>> model.save("tiny.keras")
        >>> edgecls.load_model("tiny.keras").output_shape
        (None, 3)
    """
    from edgecls import saving

    return saving.load_model(path)


def load_weights(
    model: keras.Model, source: str | Path | Mapping[str, np.ndarray], strict: bool = False
) -> LoadReport:
    """Load pretrained weights into a network of the zoo.

    Args:
        model: From ``build_model``; changed in place.
        source: A file (``.pdparams``, ``.pth``, ``.onnx``, ``.h5``, ``.keras``, ...), a URL, ``"imagenet"``, or
            ``{name: array}``.
        strict: Every array must fit. Otherwise a classifier of another number of classes is left out.

    Returns:
        What was loaded and what was left out; printing it gives one line.

    Raises:
        edgecls.errors.EdgeclsError: The weights cannot be had or do not fit.

    Example:
        >>> teacher = edgecls.build_model("MobileNetV3_small_x0_35", classes=10, input_size=32)
        >>> teacher.save("teacher.keras")
        >>> student = edgecls.build_model("MobileNetV3_small_x0_35", classes=3, input_size=32)
        >>> report = edgecls.load_weights(student, "teacher.keras")
    """
    from edgecls.weights import load

    return load.load_weights(model, source, strict)


def stages(model: keras.Model) -> dict[str, list[keras.Layer]]:
    """The layers of a network by stage, from the stem to the head, each stage in order of computation.

    A network of the zoo has the stages of its paper, also when it was saved and loaded, fused or quantized; their last
    layers are in ``model_info(name).stages``. Of other networks, what halves the image once is the stem, and each next
    halving is a stage. The head is what comes after the last feature map. ``train.lr_mult_list`` and ``train.freeze``
    name stages.

    Args:
        model: A functional model.

    Returns:
        ``{"stem": layers, "1": layers, ..., "head": layers}``. VGG has no stem.

    Raises:
        edgecls.errors.UsageError: The model is not functional, or is of another kind and has no feature maps.

    Example:
        >>> model = edgecls.build_model("MobileNetV3_small_x0_35", classes=3, input_size=32)
        >>> list(edgecls.stages(model))
        ['stem', '1', '2', '3', '4', '5', 'head']
        >>> edgecls.stages(model)["head"][-1].name
        'fc'
    """
    from edgecls.stage_layers import stages_of

    return stages_of(model)


def fuse(model: keras.Model) -> keras.Model:
    """The plain form for deployment of a network that is trained with branches (RepVGG, ACNet, PP-LCNetV2).

    Both compute the same in inference. A network without branches is returned as it is.

    Raises:
        edgecls.errors.UsageError: The model is not functional.

    Example:
        >>> model = edgecls.build_model("RepVGG_A0", classes=3, input_size=32)
        >>> edgecls.fuse(model).count_params() < model.count_params()
        True
    """
    from edgecls import reparam

    return reparam.fuse(model)


def quantize_model(
    model: keras.Model,
    input_size: int | tuple[int, int] | None = None,
    keep_float: Sequence[str] = (),
    weights: str = "per_channel",
) -> keras.Model:
    """The quantization-aware twin of any functional or Sequential Keras 3 classifier, of the zoo or not.

    It has the same weights and layer names. Call ``calibrate`` on it, train it with ``compile`` and ``fit`` if you like,
    then ``export_tflite``. See docs/quantize.md.

    Args:
        model: From images [batch, height, width, channels] to logits or probabilities. If it begins by normalizing
            (``Rescaling``, ``Normalization``), its images are pixels from 0 to 255.
        input_size: Height and width for a model that leaves them open, or one number for both.
        keep_float: Names of layers or of nested models that stay in float, or shell patterns such as ``"block_1_*"``.
        weights: ``"per_channel"``: a scale for each output channel of a kernel; ``"per_tensor"``: one for all, as some
            accelerators want it. Then batch normalizations are folded into the kernels at once.

    Raises:
        edgecls.errors.UsageError: A layer has no rule; the text names it and says what to do. Or ``weights`` is unknown.

    Example:
        >>> import keras
        >>> image = keras.Input((32, 32, 3))
        >>> x = keras.layers.Rescaling(1 / 255)(image)
        >>> x = keras.layers.SeparableConv2D(8, 3, activation="relu", name="block")(x)
        >>> x = keras.layers.GlobalAveragePooling2D()(x)
        >>> model = keras.Model(image, keras.layers.Dense(3, activation="softmax")(x))
        >>> type(edgecls.quantize_model(model).get_layer("block.depthwise")).__name__
        'QuantizedDepthwiseConv2D'
    """
    from edgecls import quantize

    return quantize.quantize_model(model, input_size, keep_float, weights)


def calibrate(
    model: keras.Model, batches: Iterable[Any], method: str = "mse", correct: bool = True
) -> dict[str, tuple[float, float]]:
    """Set the ranges of a network from ``quantize_model`` by what it computes on real images, then correct its biases.

    Args:
        model: From ``quantize_model``; changed in place.
        batches: Images as the network takes them, [batch, height, width, channels], or tuples that begin with them. A
            few hundred images are enough. They are read several times; an iterator is kept in memory.
        method: ``"mse"``, ``"percentile"`` or ``"minmax"``.
        correct: Shift each bias so that the mean output of its layer is that of the float network, on some tens of the
            images; see ``edgecls.quantize.correct_biases``. Ranges stay as they are.

    Returns:
        ``{quantizer name: (low, high)}``.

    Raises:
        edgecls.errors.UsageError: There is no image, or images do not fit the network.

    Example:
        >>> model = edgecls.build_model("MobileNetV3_small_x0_35", classes=3, input_size=32)
        >>> network = edgecls.quantize_model(model)
        >>> low, high = edgecls.calibrate(network, [np.zeros((4, 32, 32, 3), np.float32)])["fc.quant"]
    """
    from edgecls import quantize
    from edgecls.quantize.ptq import without_corrections
    from edgecls.quantize.twin import some_images

    if iter(batches) is batches:
        batches = list(batches)
    with without_corrections(model):
        ranges = quantize.calibrate(model, batches, method)
    if correct:
        quantize.correct_biases(model, some_images(batches))
    return ranges


def export_tflite(
    model: keras.Model,
    path: str | Path,
    labels: Sequence[str] | None = None,
    preprocess: Any = None,
    precision: str | None = None,
) -> Path:
    """Write a network as a TFLite file that takes the uint8 pixels of a resized photo, with labels inside.

    Args:
        model: From ``quantize_model`` for an int8 file, which ends its training; else a float network.
        path: The file to write; replaced atomically.
        labels: One for each output; None: 0, 1, 2 and so on.
        preprocess: ``Preprocess`` of the network, or its ``to_dict()``: how photos are resized. None: the short side to
            8/7 of the input, then its center.
        precision: ``int8``, ``fp32`` or ``fp16``; None: int8 of a quantized network, else fp32.

    Returns:
        ``path``.

    Raises:
        edgecls.errors.UsageError: The network does not fit the labels or the precision.
        edgecls.errors.EdgeclsError: Conversion fails.

    Example:
        >>> model = edgecls.build_model(
        ...     "MobileNetV3_small_x0_35", classes=2, input_size=32, include_preprocessing=True
        ... )
        >>> network = edgecls.quantize_model(model)
        >>> ranges = edgecls.calibrate(network, [np.full((1, 32, 32, 3), 200.0, np.float32)])
        >>> edgecls.export_tflite(network, "model.tflite", labels=["cat", "dog"]).name
        'model.tflite'
    """
    from edgecls.export import tflite
    from edgecls.quantize import is_quantized

    kind: Any = precision or ("int8" if is_quantized(model) else "fp32")
    labels = [str(i) for i in range(model.output_shape[-1])] if labels is None else labels
    return tflite.to_tflite(model, path, kind, labels, preprocess)


def __getattr__(name: str) -> Any:
    if name == "augment":  # a package, loaded when it is used
        return importlib.import_module("edgecls.augment")
    if name == "__version__":
        from importlib import metadata  # takes a third of the time of importing edgecls

        return metadata.version("edgecls")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
