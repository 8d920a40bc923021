"""Read ``.safetensors``, see https://github.com/huggingface/safetensors: a JSON table of contents, then the arrays."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from edgecls.weights.readers import State, WeightsError, plain, reading
from edgecls.weights.wire import array

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2"}
DTYPES |= {"I8": "i1", "U8": "u1", "BOOL": "?"}


def read_safetensors(path: str | Path) -> State:
    """Read the arrays of a file, by its names.

    Raises:
        WeightsError: The file is torn or of another kind, or has numbers of a type that is not known.
    """
    with reading(path):
        raw = memoryview(Path(path).read_bytes())
        (size,) = struct.unpack_from("<Q", raw)
        contents = json.loads(bytes(raw[8 : 8 + size]))
        contents.pop("__metadata__", None)
        found, data = {}, raw[8 + size :]
        for name, entry in contents.items():
            if entry["dtype"] not in DTYPES:
                raise WeightsError(f"{name} holds numbers of type {entry['dtype']}, which cannot be read")
            start, end = entry["data_offsets"]
            found[name] = array(data[start:end], DTYPES[entry["dtype"]], entry["shape"])
        return plain(found)
