"""ONNX files of image classifiers, read and simplified by onnx and onnxruntime.

Sizes are fixed, so that what only depends on them is computed once; constants are folded; batch normalizations stay, so
that the network can be trained.
"""

from __future__ import annotations

import ast
import importlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecls.errors import MissingError, UsageError
from edgecls.text import first_line

COLORS = 3
FLOAT = 1  # onnx.TensorProto.FLOAT
KEPT = ["ConvBNFusion"]  # simplifications of onnxruntime that are left out
# Operators of networks that are quantized already.
QUANTIZED = ("QLinear", "Quantize", "Dequantize", "ConvInteger", "MatMulInteger", "DynamicQuantize")


@dataclass(frozen=True)
class Graph:
    """A network from one image to scores.

    Attributes:
        path: The file.
        document: The simplified ``onnx.ModelProto``; its batch is 1.
        content: The file as it is, but for sizes that were open: what onnxruntime runs to compare.
        size: Side of the input, pixels.
        channels_last: Whether the input is [N, size, size, 3], not [N, 3, size, size].
        metadata: The file's own.
    """

    path: Path
    document: Any
    content: bytes
    size: int
    channels_last: bool
    metadata: dict[str, str]


def require_packages(*more: str) -> None:
    """Make sure that onnx, onnxruntime and ``more`` can be imported.

    Raises:
        MissingError: One is not installed.
    """
    try:
        for name in ("onnx", "onnxruntime", *more):
            importlib.import_module(name)
    except ImportError as error:
        raise MissingError(
            f"ONNX needs {error.name}, which is not installed", fix="pip install 'edgecls[onnx]'"
        ) from None


def read(path: Path, input_size: int | None = None) -> Graph:
    """Read a file.

    Args:
        path: The ``.onnx`` file.
        input_size: Side of the input, for a network that leaves it open.

    Raises:
        MissingError: The file or the extra ``[onnx]`` is missing.
        UsageError: It is no ONNX file, or not a network from one RGB image to one vector of scores.
    """
    require_packages()
    import onnx

    if not path.is_file():
        raise MissingError("no such file", where=str(path), fix="check the path")
    try:
        document = onnx.load(path)
        onnx.checker.check_model(document)
    except Exception as error:  # protobuf's, the checker's and the system's
        raise UsageError(f"not a readable ONNX file: {first_line(error)}", where=str(path)) from error
    size, channels_last = _fix_sizes(document.graph, path, input_size)
    _refuse_quantized(document.graph, path)
    content = document.SerializeToString()
    metadata = {entry.key: entry.value for entry in document.metadata_props}
    return Graph(path, _simplified(content, path), content, size, channels_last, metadata)


def _fix_sizes(graph: Any, path: Path, input_size: int | None) -> tuple[int, bool]:
    """Set the batch to 1 and open sides to ``input_size``; the side, and whether the channels come last."""
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    for what, values in (("inputs", inputs), ("outputs", graph.output)):
        if len(values) != 1:
            raise UsageError(
                f"{len(values)} {what} ({', '.join(value.name for value in values)}), and a classifier has one",
                where=str(path),
                fix="export the network from one image to one vector of scores",
            )
    kind = inputs[0].type.tensor_type
    dims = kind.shape.dim
    shape = [dim.dim_value if dim.dim_value > 0 else None for dim in dims]
    shown = " x ".join(str(side or "?") for side in shape)
    channels = next((axis for axis in (1, 3) if len(shape) == 4 and shape[axis] == COLORS), None)
    if channels is None:
        raise UsageError(
            f"not a network of RGB images: it takes {shown or 'a single number'}",
            where=str(path),
            fix="its input must be [batch, 3, height, width] or [batch, height, width, 3]",
        )
    if kind.elem_type != FLOAT:
        import onnx

        name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
        raise UsageError(f"it takes {name}", where=str(path), fix="export it with an input of float32")
    axes = (2, 3) if channels == 1 else (1, 2)
    sides = {shape[axis] or input_size for axis in axes}
    if None in sides:
        raise UsageError(
            f"the network leaves its input size open ({shown})",
            where=str(path),
            fix="give --input-size PIXELS",
        )
    if len(sides) > 1:
        raise UsageError(f"an input of {shown}, and photos are cut to squares", where=str(path))
    (size,) = sides
    if input_size not in (None, size):
        raise UsageError(
            f"the network takes {size} x {size} pixels", where="--input-size", fix="leave the option out"
        )
    if shape[0] not in (None, 1):
        raise UsageError(
            f"a batch of {shape[0]} images",
            where=str(path),
            fix="export it with a batch of 1, or an open one",
        )
    for axis, side in ((0, 1), (axes[0], size), (axes[1], size)):
        dims[axis].dim_value = side
    del graph.value_info[:]  # sizes that others inferred
    return int(size), channels == COLORS  # type: ignore[arg-type]


def _refuse_quantized(graph: Any, path: Path) -> None:
    kind = next((node.op_type for node in graph.node if node.op_type.startswith(QUANTIZED)), None)
    if kind:
        raise UsageError(
            f"a quantized network ({kind})", where=str(path), fix="give the float network's file"
        )


def _simplified(content: bytes, path: Path) -> Any:
    """The document after onnxruntime's basic passes, with all shapes that can be inferred."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "simple.onnx")
        session(content, path, options, disabled_optimizers=KEPT)
        document = onnx.load(options.optimized_model_filepath)
    return onnx.shape_inference.infer_shapes(document, data_prop=True)


def session(content: bytes, path: Path, options: Any = None, **more: Any) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU.

    Raises:
        UsageError: onnxruntime cannot run the network.
    """
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"], **more)
    except Exception as error:  # its own classes, without a common one
        raise UsageError(f"onnxruntime cannot run it: {first_line(error)}", where=str(path)) from error


# What exporters write into a file's metadata: our own, PaddleOCR and PaddleX, Ultralytics.
LABELS: dict[str, Callable[[str], list[str]]] = {
    "labels": lambda text: [str(label) for label in json.loads(text)],
    "character": lambda text: text.split("\n"),
    "names": lambda text: [str(name) for _, name in sorted(dict(ast.literal_eval(text)).items())],
}


def labels(metadata: dict[str, str]) -> list[str] | None:
    """The class names in a file's metadata, if there are some that can be read.

    Example:
        >>> labels({"names": "{0: 'cat', 1: 'dog'}"})
        ['cat', 'dog']
    """
    for key, parse in LABELS.items():
        if key in metadata:
            try:
                return parse(metadata[key])
            except (ValueError, SyntaxError, TypeError):
                continue
    return None


def preprocess(metadata: dict[str, str]) -> dict[str, Any]:
    """``Preprocess.to_dict()`` of a file that ``edgecls export --format onnx`` wrote; empty for another one."""
    try:
        settings = json.loads(metadata.get("preprocess", ""))
    except ValueError:
        return {}
    return settings if isinstance(settings, dict) else {}


def attributes(node: Any) -> dict[str, Any]:
    """The attributes of a node by name; tensors as arrays."""
    import onnx

    values = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    return {
        name: onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
        for name, value in values.items()
    }


def constants(graph: Any) -> dict[str, np.ndarray]:
    """The arrays of a graph by name: its initializers and the results of ``Constant``."""
    import onnx

    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            (value,) = attributes(node).values()
            arrays[node.output[0]] = np.asarray(value)
    return {
        name: array.astype(np.float32) if array.dtype in (np.float16, np.float64) else array
        for name, array in arrays.items()
    }


def shapes(graph: Any) -> dict[str, list[int]]:
    """The shapes of a graph's tensors, of those that are known."""
    known = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            known[value.name] = [dim.dim_value for dim in dims]
    return known
