"""A TFLite file as Python objects, and back."""

from __future__ import annotations

from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema


def unpack(content: bytes) -> Any:
    """The ``schema.ModelT`` of a file."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))


def pack(model: Any, size: int) -> bytes:
    """The file of a ``schema.ModelT``. Weights lose their alignment; ``metadata.add`` gives it back.

    Args:
        model: The model.
        size: About how many bytes it will have.
    """
    builder = flatbuffers.Builder(size)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
