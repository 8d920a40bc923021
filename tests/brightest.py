"""A .tflite file that is written without TensorFlow: its logits are the means of red, green and blue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from PIL import Image

from edgecls.data.preprocess import Preprocess
from edgecls.export import metadata

CLASSES = ["ant", "bee", "cat"]  # the answer to a red, a green and a blue photo
SIZE = 32


def write(path: Path, scale: float = 0.05, classes: list[str] = CLASSES) -> Path:
    """The file: uint8 [1, 32, 32, 3] -> float32 [1, 3], ``scale`` times the mean of each channel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = metadata.add(_network(scale), "brightest", classes, Preprocess(SIZE), "fp32")
    path.write_bytes(content)
    return path


def photo(path: Path, channel: int, size: tuple[int, int] = (60, 45)) -> Path:
    """A photo that is red (0), green (1) or blue (2)."""
    Image.new("RGB", size, tuple(230 if c == channel else 20 for c in range(3))).save(path)
    return path


def _network(scale: float) -> bytes:
    types, kinds = schema.TensorType, schema.BuiltinOperator
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.buffers = 3, [graph], [schema.BufferT()]
    image = [1, SIZE, SIZE, 3]
    constants = {2: np.array([1, 2], np.int32), 4: np.array([scale], np.float32)}
    shapes = [
        (image, types.UINT8),
        (image, types.FLOAT32),
        ([2], types.INT32),
        ([1, 3], types.FLOAT32),
        ([1], types.FLOAT32),
        ([1, 3], types.FLOAT32),
    ]
    graph.tensors = []
    for i, (shape, kind) in enumerate(shapes):
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.name, tensor.buffer = shape, kind, f"t{i}", 0
        if i in constants:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(constants[i].tobytes(), np.uint8)
            tensor.buffer = len(model.buffers)
            model.buffers.append(buffer)
        graph.tensors.append(tensor)
    graph.inputs, graph.outputs = [0], [5]
    mean, mul = schema.ReducerOptionsT(), schema.MulOptionsT()
    mean.keepDims = False
    nodes: list[tuple[int, list[int], list[int], Any, int]] = [
        (kinds.CAST, [0], [1], None, 0),
        (kinds.MEAN, [1, 2], [3], mean, schema.BuiltinOptions.ReducerOptions),
        (kinds.MUL, [3, 4], [5], mul, schema.BuiltinOptions.MulOptions),
    ]
    model.operatorCodes, graph.operators = [], []
    for kind, inputs, outputs, options, number in nodes:
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = kind
        code.version = 1
        operator.opcodeIndex = len(model.operatorCodes)
        operator.inputs, operator.outputs = inputs, outputs
        operator.builtinOptions, operator.builtinOptionsType = options, number
        model.operatorCodes.append(code)
        graph.operators.append(operator)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
