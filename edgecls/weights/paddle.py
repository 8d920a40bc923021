"""Read PaddlePaddle's static inference models: a program (``.pdmodel``) and its arrays (``.pdiparams``).

The program is a protocol buffer, see ``paddle/fluid/framework/framework.proto``; the arrays are written one behind the
other, in the order of their names.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from edgecls.weights.program import Op
from edgecls.weights.readers import State, WeightsError, reading
from edgecls.weights.wire import Message, array

DTYPES = {0: "?", 1: "<i2", 2: "<i4", 3: "<i8", 4: "<f2", 5: "<f4", 6: "<f8", 20: "u1", 21: "i1"}
NOT_STORED = (9, 10)  # kinds of variables: what is fed and fetched
KERNEL = {"Filter": "weight", "W": "weight", "Bias": "bias"}
# Which part of a layer's state an operation's input is, by the operation's kind.
PARTS = {
    "conv2d": KERNEL,
    "depthwise_conv2d": KERNEL,
    "fc": KERNEL,
    "mul": {"Y": "weight"},
    "matmul": {"Y": "weight"},
    "matmul_v2": {"Y": "weight"},
    "elementwise_add": {"Y": "bias"},
    "batch_norm": {"Scale": "weight", "Bias": "bias", "Mean": "_mean", "Variance": "_variance"},
}
DATA = ("X", "Y", "Input")  # inputs that features come through
LINEAR = {"reshape", "reshape2", "flatten", "flatten2", "flatten_contiguous_range", "squeeze", "squeeze2"}
LINEAR |= {"transpose", "transpose2", "pool2d", "relu", "dropout"}


def read_program(path: Path) -> tuple[list[Op], State]:
    """Read an inference model.

    Args:
        path: Its ``.pdmodel`` or ``.pdiparams`` file; the other one lies beside it.

    Returns:
        The operations in order of execution, and the arrays by the program's names.

    Raises:
        WeightsError: A file is missing, torn or of another kind.
    """
    program, parameters = program_files(path)
    with reading(program):
        blocks = Message(program.read_bytes()).messages(1)
        if not blocks:
            raise WeightsError("not a program")
        variables = blocks[0].messages(3)
        names = sorted(v.text(1) for v in variables if v.integer(3) and _kind(v) not in NOT_STORED)
    with reading(parameters):
        arrays = _arrays(memoryview(parameters.read_bytes()), names)
    with reading(program):
        return [_op(Message(raw), arrays) for raw in blocks[0].get(4, []) if not isinstance(raw, int)], arrays


def program_files(path: Path) -> tuple[Path, Path]:
    """The ``.pdmodel`` and the ``.pdiparams`` file of an inference model, given either of them.

    Raises:
        WeightsError: The other one is missing.
    """
    files = path.with_suffix(".pdmodel"), path.with_suffix(".pdiparams")
    for file in files:
        if not file.is_file():
            raise WeightsError(f"{path}: {file.name} belongs beside it and is not there")
    return files


def _kind(variable: Message) -> int:
    return Message(variable.bytes(2)).integer(1)


def _arrays(raw: memoryview, names: list[str]) -> State:
    arrays, at = {}, 0
    for name in names:
        version, levels = struct.unpack_from("<IQ", raw, at)
        at += 12
        for _ in range(levels):  # where sequences begin, in which weights have no part
            at += 8 + struct.unpack_from("<Q", raw, at)[0]
        tensor_version, size = struct.unpack_from("<Ii", raw, at)
        at += 8
        description = Message(raw[at : at + size])
        at += size
        dtype, shape = DTYPES.get(description.integer(1)), description.integers(2)
        if version or tensor_version or dtype is None:
            raise WeightsError(f"{name} is of an unknown version or type")
        size = np.dtype(dtype).itemsize * math.prod(shape)
        arrays[name] = array(raw[at : at + size], dtype, shape)
        at += size
    if at != len(raw):
        raise WeightsError(f"torn, or of another program: {len(raw) - at} bytes are left over")
    return arrays


def _op(message: Message, arrays: State) -> Op:
    kind = message.text(3)
    parts = PARTS.get(kind, {})
    inputs = [(slot.text(1), name) for slot in message.messages(1) for name in slot.texts(2)]
    op = Op(
        # Shapes, and what is computed from them, carry no features.
        [name for slot, name in inputs if name not in arrays and slot in DATA and kind != "shape"],
        [name for slot in message.messages(2) for name in slot.texts(2)],
        {parts[slot]: name for slot, name in inputs if name in arrays and slot in parts},
        linear=kind in LINEAR,
        joins=kind == "concat",
    )
    if kind == "dropout":
        attributes = {a.text(1): a for a in message.messages(4)}
        mode = attributes.get("dropout_implementation")
        if mode is None or mode.text(5) == "downgrade_in_infer":
            op.factor = 1 - attributes["dropout_prob"].real(4)
    return op
