"""Keras networks to .tflite files that take the pixels of a resized photo: uint8 RGB [1, size, size, 3], 0 to 255."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from edgecls.data.preprocess import Preprocess
from edgecls.errors import EdgeclsError, UsageError
from edgecls.export import conversion, heads, inspect, marks, metadata, small_weights
from edgecls.files import atomic
from edgecls.precisions import KINDS, Precision, find
from edgecls.quantize import exact_arithmetic, finalize, floats, is_quantized
from edgecls.zoo.layers import Normalize

Scores = Literal["softmax", "logits"]
MAX_BYTES = 2**31  # offsets in a flatbuffer are signed 32-bit numbers


def to_tflite(
    model: keras.Model,
    path: str | Path,
    precision: Precision,
    classes: Sequence[str],
    preprocess: Any = None,
    output: Literal["float", "uint8"] = "float",
    scores: Scores | None = None,
) -> Path:
    """Convert a network and write its metadata into the file.

    The file is run once before it gets its name, so a file of that name works.

    Args:
        model: From pixels to logits: the float network for fp32 and fp16, the quantization-aware one for int8. The
            latter is finalized.
        path: The file to write; replaced atomically.
        precision: A name of ``edgecls.precisions``: ``int8`` computes everything in int8; ``fp16`` and
            ``weight_only_wi8`` store weights in half and a quarter of the bytes and compute in float;
            ``dynamic_wi8_afp32`` rounds what convolutions and dense layers take when the file runs.
        classes: One label for each logit.
        preprocess: The ``Preprocess`` of the network, or its ``to_dict()``; None: resize to 8/7 of the input's side and
            cut the center.
        output: Type of an int8 file's output: dequantized logits, or raw uint8 ones, whose scale is in the file.
        scores: ``softmax``: the file gives probabilities, by a float operation behind the logits. ``logits``: it gives
            logits. None: what the network gives. uint8 outputs are logits.

    Returns:
        ``path``.

    Raises:
        UsageError: The network does not fit the precision or the labels.
        EdgeclsError: Conversion fails or the file does not compute finite numbers.

    Example:
        >>> from edgecls.data.preprocess import Preprocess
        >>> model = edgecls.build_model(
        ...     "MobileNetV3_small_x0_35", classes=2, input_size=32, include_preprocessing=True
        ... )
        >>> path = to_tflite(model, "model.tflite", "fp32", ["cat", "dog"], Preprocess(32))
        >>> edgecls.export.metadata.read(path)["classes"]
        ['cat', 'dog']
    """
    path = Path(path)
    precision = find(precision)  # type: ignore[assignment]
    if precision not in KINDS:
        raise UsageError(f"unknown precision {precision!r}", fix=f"use one of {', '.join(KINDS)}")
    if (precision == "int8") != is_quantized(model):
        kind = "quantization-aware" if precision == "int8" else "float"
        raise UsageError(f"{precision} needs the {kind} network", where=model.name)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UsageError(
            f"{len(model.inputs)} inputs and {len(model.outputs)} outputs, and a classifier has one of each",
            where=model.name,
            fix="export keras.Model(one input, one output)",
        )
    if len(classes) != model.output_shape[-1]:
        raise UsageError(f"{len(classes)} labels for {model.output_shape[-1]} logits", where=model.name)
    preprocess = _usual(model) if preprocess is None else preprocess
    if precision == "int8":
        finalize(model)
    body, own = heads.split(model) if precision == "int8" or scores else (model, None)
    raw = precision == "int8" and output == "uint8"
    asked = scores if scores == "softmax" and not raw else None
    head = None if scores == "logits" else own or asked
    if head and raw:
        raise UsageError(
            f"{output} output of a network with a {head}, which is computed in float", where=model.name
        )
    content = convert(body, precision, output)
    with atomic(path) as temporary:
        temporary.write_bytes(metadata.add(content, model.name, classes, preprocess, precision, head))
        _smoke_test(temporary)
    return path


def _usual(model: keras.Model) -> dict[str, Any]:
    """How photos are resized for a network of which nothing else is known."""
    height, width = model.input_shape[1:3]
    if height != width:
        raise UsageError(
            f"images of {height} x {width} pixels, and nothing says how photos are cut to that",
            where=model.name,
            fix='say it: preprocess={"size": [height, width], ...}',
        )
    return Preprocess(height).to_dict()


def convert(model: keras.Model, precision: Precision, output: str = "float") -> bytes:
    """The bare TFLite flatbuffer of ``model``, batch 1."""
    size = KINDS[precision].weight_bytes * model.count_params()
    if size >= MAX_BYTES:
        raise EdgeclsError(
            f"a .tflite file holds at most 2 GB, and these weights are {size / 1e9:.1f} GB in {precision}",
            where=model.name,
            fix="take a smaller network or precision",
        )
    conversion.server.start()  # while the graph is made
    normalize, body = _split(model)
    dtype = tf.float32 if precision == "int8" else tf.uint8
    spec = tf.TensorSpec([1, *model.input_shape[1:]], dtype, name="image")

    @tf.function(input_signature=[spec], autograph=False)
    def serve(image: Any) -> Any:
        if normalize is not None and precision != "int8":
            pixels = _normalized(image, normalize)
        else:
            pixels = tf.cast(image, tf.float32)
        with exact_arithmetic(model, on=False), floats.marked(model):
            return body(pixels, training=False)

    content = conversion.convert(
        serve.get_concrete_function(),
        model.name,
        optimized=precision in ("int8", "dynamic_wi8_afp32"),
        input_type="uint8" if precision == "int8" else "float32",
        output_type="uint8" if precision == "int8" and output == "uint8" else "float32",
    )
    if precision == "dynamic_wi8_afp32":
        return small_weights.unpack_depthwise(content)
    if precision in ("fp16", "weight_only_wi8"):
        return small_weights.shrink(content, "float16" if precision == "fp16" else "int8")
    return marks.unmark(content) if floats.boundaries(model) else content


def _split(model: keras.Model) -> tuple[Normalize | None, keras.Model]:
    """A network's ``Normalize`` layer, if it has one, and the part after it.

    The layer of a quantized network is the zero point and the step of its first grid (see ``quantize.rules.affine``).
    So an int8 file starts after the layer, and the pixels are the integers on that grid.
    """
    normalize = next((layer for layer in model.layers if isinstance(layer, Normalize)), None)
    return normalize, model if normalize is None else keras.Model(
        normalize.output, model.output, name=model.name
    )


def _normalized(image: tf.Tensor, layer: Normalize) -> tf.Tensor:
    """What ``layer`` computes of the bytes of an image [1, H, W, 3], to the bit.

    XNNPACK broadcasts three values over the pixels one by one, which takes a quarter of MobileNetV3-Small's time. A row
    of the image times a row of constants is fast. Bytes are put into rows because a copy of them is a quarter as large.
    """
    _, height, width, channels = image.shape
    rows = tf.cast(tf.reshape(image, [1, height, width * channels]), tf.float32)
    scale, offset = (tf.constant(values * width, rows.dtype) for values in layer.line)
    return tf.reshape(rows * scale + offset, image.shape)


def _smoke_test(path: Path) -> None:
    """Run the file once on noise, so that a fault of the converter (NaN) shows now and not on a phone."""
    run = inspect.Runner(path)
    size = run.input["shape"][1:]
    logits = run(np.random.default_rng(0).integers(0, 256, size, np.uint8)[None])
    if not np.isfinite(logits).all():
        raise EdgeclsError("the converted network computes values that are not finite", where=path.name)
