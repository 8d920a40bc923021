"""Keras networks to ONNX, by Keras' own exporter (tf2onnx), and compared with onnxruntime before the file gets its name."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecls.data.resizing import describe_preprocess
from edgecls.errors import EdgeclsError
from edgecls.files import atomic
from edgecls.labels import check_labels
from edgecls.text import first_line
from edgecls.weights.translate.graph import require_packages

if TYPE_CHECKING:
    import keras

LIMIT = 1e-4
"""Of the outputs' range, between Keras and onnxruntime."""


def to_onnx(
    model: keras.Model,
    path: str | Path,
    classes: Sequence[str],
    preprocess: dict[str, Any],
    images: np.ndarray,
) -> float:
    """Write a float network as ONNX: ``image`` float32 [batch, size, size, 3], 0 to 255, to ``scores`` [batch, classes].

    Labels and preprocessing are in the file's metadata: ``labels`` (a JSON list), ``preprocess`` (``Preprocess.to_dict()`` as
    JSON) and ``preprocess_text``.

    Args:
        model: From pixels to scores: logits, or probabilities if it ends in a softmax.
        path: The file to write; replaced atomically.
        classes: One label for each score.
        preprocess: ``Preprocess.to_dict()``.
        images: Photos to compare on, uint8 [N, size, size, 3].

    Returns:
        The largest difference between onnxruntime and Keras, as a part of the outputs' range.

    Raises:
        MissingError: The extra ``[onnx]`` is not installed.
        EdgeclsError: The network cannot be converted, or the file computes something else.

    Example:
        >>> to_onnx(model, "model.onnx", ["cat", "dog"], preprocess.to_dict(), photos)  # doctest: +SKIP
        4.1e-07
    """
    path, pixels = Path(path), images.astype(np.float32)
    check_labels(classes)
    require_packages("tf2onnx")
    expect = np.asarray(model(pixels, training=False))  # Keras exports only a network that was called
    with atomic(path) as temporary:
        try:
            with _quiet():
                model.export(temporary, format="onnx", verbose=False)
            _describe(temporary, classes, preprocess)
        except OSError:
            raise
        except Exception as error:  # the exporter raises whatever its passes raise
            raise EdgeclsError(f"ONNX conversion failed: {first_line(error)}", where=model.name) from error
        difference = float(np.abs(_run(temporary, pixels) - expect).max() / max(float(np.ptp(expect)), 1e-30))
        if not difference <= LIMIT:
            raise EdgeclsError(
                f"the ONNX file is {difference:.2g} of the outputs' range off Keras, and {LIMIT:g} is the limit",
                where=model.name,
            )
    return difference


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the log of tf2onnx, which prints the traceback of an optimization that fails and is left out, and without a
    remark of Keras on NumPy's future names.
    """
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def _describe(path: Path, classes: Sequence[str], preprocess: dict[str, Any]) -> None:
    """Name input, output and batch axis, add the metadata, and check every operation."""
    import onnx

    document = onnx.load(path)
    graph = document.graph
    _replace_erfc(graph)
    names = {graph.input[0].name: "image", graph.output[0].name: "scores"}
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(name, name) for name in values]
    for value in (graph.input[0], graph.output[0]):
        value.name = names[value.name]
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    facts = {
        "labels": json.dumps(list(classes), ensure_ascii=False),
        "preprocess": json.dumps(preprocess),
        "preprocess_text": describe_preprocess(preprocess),
    }
    onnx.helper.set_model_props(document, facts)
    onnx.checker.check_model(document)
    onnx.save(document, path)


def _replace_erfc(graph: Any) -> None:
    """GELU in TensorFlow is made of erfc. tf2onnx leaves it as it is, and ONNX has erf only: erfc(x) = 1 - erf(x)."""
    from onnx import helper, numpy_helper

    nodes = []
    for node in graph.node:
        if node.op_type != "Erfc":
            nodes.append(node)
            continue
        one, erf = f"{node.name}/one", f"{node.name}/erf"
        graph.initializer.append(numpy_helper.from_array(np.array(1, np.float32), one))
        nodes.append(helper.make_node("Erf", list(node.input), [erf], name=erf))
        nodes.append(helper.make_node("Sub", [one, erf], list(node.output), name=node.name))
    del graph.node[:]
    graph.node.extend(nodes)


def _run(path: Path, pixels: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": pixels})[0]
