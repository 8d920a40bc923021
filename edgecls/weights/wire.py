"""Read protocol buffers without generated code. PaddlePaddle's programs and ONNX files are protocol buffers.

See https://protobuf.dev/programming-guides/encoding/. A message is a sequence of fields. Each field says its number and
how it is encoded, so a reader needs to know only the numbers that it uses and can skip all others.
"""

from __future__ import annotations

import math
import struct

import numpy as np

from edgecls.weights.readers import WeightsError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Message(dict[int, list[int | memoryview]]):
    """The fields of one message by number: varints as unsigned integers, all else as bytes that are not copied.

    Raises:
        WeightsError: The bytes are no message, or end too early.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        super().__init__()
        data = memoryview(data)
        at = 0
        while at < len(data):
            tag, at = _varint(data, at)
            number, kind = tag >> 3, tag & 7
            value: int | memoryview
            if kind == VARINT:
                value, at = _varint(data, at)
            else:
                if kind == BYTES:
                    size, at = _varint(data, at)
                elif kind in (FIXED32, FIXED64):
                    size = 4 if kind == FIXED32 else 8
                else:
                    raise WeightsError(f"not a protocol buffer (field of kind {kind})")
                if at + size > len(data):
                    raise WeightsError(f"torn, {at + size - len(data)} bytes are missing")
                value, at = data[at : at + size], at + size
            self.setdefault(number, []).append(value)

    def bytes(self, number: int) -> memoryview:
        """The last value of a field, as the format has it, or nothing."""
        value = self.get(number, [memoryview(b"")])[-1]
        if isinstance(value, int):
            raise WeightsError(f"not the protocol buffer that was expected (field {number})")
        return value

    def text(self, number: int) -> str:
        """A string; empty where the field is absent."""
        return str(self.bytes(number), "utf-8")

    def texts(self, number: int) -> list[str]:
        """A repeated string."""
        return [str(value, "utf-8") for value in self.get(number, []) if not isinstance(value, int)]

    def real(self, number: int) -> float:
        """A float; 0 where the field is absent."""
        raw = self.bytes(number)
        return struct.unpack("<f", raw)[0] if raw else 0.0

    def integer(self, number: int) -> int:
        """A signed integer; 0 where the field is absent."""
        return next(reversed(self.integers(number)), 0)

    def integers(self, number: int) -> list[int]:
        """Repeated signed integers, packed or not."""
        result = []
        for value in self.get(number, []):
            if isinstance(value, int):
                result.append(_signed(value))
                continue
            at = 0
            while at < len(value):
                one, at = _varint(value, at)
                result.append(_signed(one))
        return result

    def messages(self, number: int) -> list[Message]:
        """The messages of a repeated field."""
        return [Message(value) for value in self.get(number, []) if not isinstance(value, int)]


def array(raw: memoryview, dtype: np.dtype | str, shape: list[int]) -> np.ndarray:
    """``raw`` as an array of this shape.

    Raises:
        WeightsError: It has another size.
    """
    dtype = np.dtype(dtype)
    if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize != len(raw):
        raise WeightsError(f"torn, {len(raw)} bytes where {dtype} {shape} belongs")
    return np.frombuffer(raw, dtype).reshape(shape)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """An unsigned integer of 7 bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise WeightsError("torn, it ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise WeightsError("not a protocol buffer (a number of more than 64 bits)")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
