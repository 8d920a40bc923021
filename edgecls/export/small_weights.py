"""Files that keep kernels in float16 or int8 and compute in float: half or a quarter of the size, at the speed of fp32.

Behind each such kernel stands a DEQUANTIZE operation, which XNNPACK computes once, when the file is loaded. (The
converter's own float16 files have one behind every constant, too, such as the factors of a normalization. XNNPACK does
not take those, and the graph is cut.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgecls.export import flatbuffer

LEAST_VALUES = 1024  # of a kernel: below it is not worth an operation
STEPS = 127
CHANNEL_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0}


def shrink(content: bytes, kind: Literal["int8", "float16"]) -> bytes:
    """A converted fp32 file with smaller kernels. int8 ones have a scale for each output channel.

    Args:
        content: The converter's flatbuffer.
        kind: What a kernel is kept in.
    """
    model = flatbuffer.unpack(content)
    graph = model.subgraphs[0]

    def smaller(name: str, op: Any) -> Iterator[Any]:
        index = int(op.inputs[1])
        values = _values(model, graph.tensors[index])
        if values is not None and values.size >= LEAST_VALUES:
            tensor, kept = STORES[kind](graph.tensors[index], values, CHANNEL_AXIS[name])
            model.buffers[tensor.buffer].data = kept.reshape(-1).view(np.uint8)
            graph.tensors.append(tensor)
            graph.tensors[index].buffer = 0
            yield _dequantize(model, len(graph.tensors) - 1, index)

    return _with_dequantize(model, smaller, len(content))


def unpack_depthwise(content: bytes) -> bytes:
    """A file of dynamic int8 in which depthwise convolutions compute in float: XNNPACK has no dynamic ones.

    Args:
        content: The converter's flatbuffer.
    """
    model = flatbuffer.unpack(content)
    graph = model.subgraphs[0]

    def in_float(name: str, op: Any) -> Iterator[Any]:
        source, kernel = (graph.tensors[int(i)] for i in op.inputs[:2])
        types = (source.type, kernel.type)
        if name == "DEPTHWISE_CONV_2D" and types == (schema.TensorType.FLOAT32, schema.TensorType.INT8):
            graph.tensors.append(_twin(kernel, "FLOAT32"))
            graph.tensors[-1].buffer = 0
            stored, floating = int(op.inputs[1]), len(graph.tensors) - 1
            op.inputs = [op.inputs[0], floating, *op.inputs[2:]]
            yield _dequantize(model, stored, floating)

    return _with_dequantize(model, in_float, len(content))


def _with_dequantize(model: Any, before: Callable[[str, Any], Iterator[Any]], size: int) -> bytes:
    """The file with more operations: ``before(name, op)`` gives those that go right before an operation with a kernel.

    Right before it, and not at the beginning, so that the operations stay in one partition.
    """
    graph = model.subgraphs[0]
    kinds = {getattr(schema.BuiltinOperator, name): name for name in CHANNEL_AXIS}
    operators = []
    for op in graph.operators:
        name = kinds.get(model.operatorCodes[op.opcodeIndex].builtinCode)
        operators += [*(before(name, op) if name else ()), op]
    graph.operators = operators
    return flatbuffer.pack(model, size)


def _values(model: Any, tensor: Any) -> np.ndarray | None:
    """A constant float tensor; None if it is not one."""
    data = model.buffers[tensor.buffer].data
    if tensor.type != schema.TensorType.FLOAT32 or data is None or not len(data):
        return None
    return np.asarray(data, np.uint8).view(np.float32).reshape(tensor.shape)


def _as_int8(floating: Any, values: np.ndarray, axis: int) -> tuple[Any, np.ndarray]:
    """The int8 twin of a float tensor, and its content."""
    others = tuple(i for i in range(values.ndim) if i != axis)
    largest = np.abs(values).max(axis=others, keepdims=True)
    scales = np.where(largest > 0, largest / STEPS, 1.0).astype(np.float32)
    tensor, quantization = _twin(floating, "INT8"), schema.QuantizationParametersT()
    quantization.scale = scales.reshape(-1)
    quantization.zeroPoint = np.zeros(scales.size, np.int64)
    quantization.quantizedDimension = axis
    tensor.quantization = quantization
    return tensor, np.rint(values / scales).astype(np.int8)


def _as_float16(floating: Any, values: np.ndarray, axis: int) -> tuple[Any, np.ndarray]:
    """The float16 twin of a float tensor, and its content."""
    largest = np.finfo(np.float16).max
    return _twin(floating, "FLOAT16"), np.clip(values, -largest, largest).astype(np.float16)


def _twin(tensor: Any, kind: str) -> Any:
    """A tensor of the same shape and another type, in the same buffer."""
    twin = schema.TensorT()
    name = tensor.name.decode() if isinstance(tensor.name, bytes) else tensor.name
    twin.shape, twin.buffer, twin.name = tensor.shape, tensor.buffer, f"{name}/{kind.lower()}"
    twin.type = getattr(schema.TensorType, kind)
    return twin


def _dequantize(model: Any, source: int, target: int) -> Any:
    """An operation that makes a float tensor of an int8 one."""
    kind, operator = schema.BuiltinOperator.DEQUANTIZE, schema.OperatorT()
    codes = [code.builtinCode for code in model.operatorCodes]
    if kind not in codes:
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = (
            kind,
            kind,
            5,
        )  # 5: a scale for each channel
        model.operatorCodes.append(code)
    operator.opcodeIndex = codes.index(kind) if kind in codes else len(codes)
    operator.inputs, operator.outputs = [source], [target]
    return operator


STORES = {"int8": _as_int8, "float16": _as_float16}
