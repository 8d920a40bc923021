"""Read the graph and the arrays of an ONNX file, see ``onnx/onnx.proto``; the onnx package is not needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgecls.weights.program import Op
from edgecls.weights.readers import State, WeightsError, reading
from edgecls.weights.wire import Message, array

DTYPES = {1: "<f4", 2: "u1", 3: "i1", 5: "<i2", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8"}
REALS = {4: "<f4", 10: "<f8"}  # fields of a tensor that has numbers in place of raw bytes
# Which part of a layer's state each input of an operation is.
PARTS = {
    "Conv": ("", "weight", "bias"),
    "Gemm": ("", "weight", "bias"),
    "MatMul": ("", "weight"),
    "BatchNormalization": ("", "weight", "bias", "_mean", "_variance"),
}
QUANTIZED = {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DequantizeLinear"}
LINEAR = {
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Identity",
    "Relu",
    "ReduceMean",
    "Dropout",
}
LINEAR |= {"GlobalAveragePool", "AveragePool", "GlobalMaxPool", "MaxPool"}


def read_onnx(path: Path) -> tuple[list[Op], State]:
    """Read an ONNX file.

    Returns:
        The operations in order of execution, and the arrays by their names in PaddlePaddle's layout.

    Raises:
        WeightsError: The file is torn, is no ONNX file or keeps its arrays in other files.
    """
    with reading(path):
        graph = Message(Message(path.read_bytes()).bytes(7))
        operations = graph.messages(1)
        if not operations:
            raise WeightsError("not an ONNX file")
        arrays = dict(map(_tensor, graph.messages(5)))
        for message in operations:
            if message.text(4) == "Constant" and (value := _attributes(message).get("value")):
                arrays[message.text(2)] = _tensor(value.messages(5)[0])[1]
            # An exporter keeps equal arrays once and gives the other names by an Identity.
            elif message.text(4) == "Identity" and message.text(1) in arrays:
                arrays[message.text(2)] = arrays[message.text(1)]
            elif message.text(4) in QUANTIZED:
                raise WeightsError(
                    f"a quantized network ({message.text(4)}); its float network's file is needed"
                )
        made = {name: message.text(4) for message in operations for name in message.texts(2)}
        ops = [_op(message, arrays, made) for message in operations]
        used = {name for op in ops for name in op.arrays.values()}
        # Scalars and integers are settings of operations.
        weights = {n: a for n, a in arrays.items() if n in used or (a.dtype.kind == "f" and a.size > 1)}
        return ops, weights


def _attributes(message: Message) -> dict[str, Message]:
    return {attribute.text(1): attribute for attribute in message.messages(5)}


def _tensor(message: Message) -> tuple[str, np.ndarray]:
    name, shape, dtype = message.text(8), message.integers(1), DTYPES.get(message.integer(2))
    if message.integer(14) or dtype is None:
        raise WeightsError(f"{name} is kept in another file or of an unknown type")
    if raw := message.bytes(9):
        return name, array(raw, dtype, shape)
    for number, real in REALS.items():
        if number in message:
            parts = [bytes(part) for part in message[number] if not isinstance(part, int)]
            return name, array(memoryview(b"".join(parts)), real, shape)
    return name, np.array(message.integers(5) + message.integers(7), dtype).reshape(shape)


def _op(message: Message, arrays: State, made: dict[str, str]) -> Op:
    """One operation; arrays that it reads in another layout are turned into PaddlePaddle's."""
    kind, inputs = message.text(4), message.texts(1)
    stored = {i: name for i, name in enumerate(inputs) if name in arrays}
    op = Op(
        [name for name in inputs if name not in arrays],
        message.texts(2),
        linear=kind in LINEAR,
        joins=kind == "Concat",
    )
    parts = PARTS.get(kind, ())
    op.arrays = {parts[i]: name for i, name in stored.items() if i < len(parts) and parts[i]}
    if kind == "Shape":
        op.inputs = []  # sizes carry no features
    elif kind == "Gemm" and "weight" in op.arrays and (turned := _attributes(message).get("transB")):
        if turned.integer(3):
            arrays[op.arrays["weight"]] = arrays[op.arrays["weight"]].T
    elif kind in ("Add", "Mul") and len(stored) == len(op.inputs) == 1:
        (name,) = stored.values()
        value = arrays[name]
        if value.size == 1:
            # A constant on a product of two values is part of an activation; elsewhere it is a dropout's.
            if kind == "Mul" and made.get(op.inputs[0]) != "Mul":
                op.factor, op.linear = float(value.reshape(())), True
        elif kind == "Add" and value.size == max(value.shape):
            arrays[name], op.arrays = value.reshape(-1), {"bias": name}
    return op
