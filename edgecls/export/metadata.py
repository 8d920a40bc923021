"""TFLite metadata: what a phone must know to feed the file and to name its answers.

It is in three places of the file: a signature; the standard metadata table ("M001",
https://www.tensorflow.org/lite/models/convert/metadata), which is written here field by field with the flatbuffers
runtime; and, as the standard has it, a zip archive at the end of the file. The archive has ``labels.txt`` and our
``edgecls.json``, which says how to resize and crop.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import number_types
from flatbuffers.table import Table

from edgecls.data.resizing import describe_preprocess
from edgecls.errors import UsageError
from edgecls.export import heads
from edgecls.export.attached import DETAILS, LABELS, attached
from edgecls.labels import format_labels

SIGNATURE = "serving_default"
_ENTRY, _IDENTIFIER = "TFLITE_METADATA", b"M001"
# Field numbers and union members of metadata_schema.fbs.
_RGB, _IMAGE, _FEATURE, _NORMALIZATION, _AXIS_LABELS = 1, 2, 1, 1, 2

Field = Callable[[int], None]


def add(
    content: bytes,
    name: str,
    classes: Sequence[str],
    preprocess: Any,
    precision: str,
    head: str | None = None,
) -> bytes:
    """A TFLite file with signature, metadata and labels.

    Args:
        content: The converter's flatbuffer; one input, one output.
        name: Of the model.
        classes: One label a logit.
        preprocess: ``Preprocess`` or its ``to_dict()``; kept whole in the JSON part.
        precision: Kept in the JSON part.
        head: A function of ``heads.OPERATORS`` to add behind the logits.

    Raises:
        UsageError: A label cannot be kept; see ``edgecls.labels.check_labels``.
    """
    labels = format_labels(classes)
    settings = preprocess if isinstance(preprocess, dict) else preprocess.to_dict()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    graph = model.subgraphs[0]
    image, logits = (graph.tensors[tensors[0]] for tensors in (graph.inputs, graph.outputs))
    _shorten_names(graph)
    image.name, logits.name = "image", "logits"
    if head:
        heads.append(model, head)
    model.signatureDefs = [_signature(graph)]
    table = _table(name, image, settings, graph.tensors[graph.outputs[0]].name)
    buffer, entry = _Buffer(), schema.MetadataT()
    buffer.data = np.frombuffer(table, np.uint8)
    entry.name, entry.buffer = _ENTRY, len(model.buffers)
    for each in model.buffers:
        each.__class__ = _Buffer
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    builder = _Builder(len(content) + 4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    details = {
        "schema": "edgecls.model/1",
        "name": name,
        "precision": precision,
        "preprocess": settings,
        "preprocess_text": describe_preprocess(settings),
    }
    file = io.BytesIO()
    file.write(builder.Output())
    with zipfile.ZipFile(file, "a") as archive:  # ZipInfo's fixed date: the same model is the same bytes
        archive.writestr(zipfile.ZipInfo(LABELS), labels)
        archive.writestr(zipfile.ZipInfo(DETAILS), json.dumps(details, indent=1))
    return file.getvalue()


def read(path: str | Path) -> dict[str, Any]:
    """What ``add`` put into a file, and as much of it as other makers' files have.

    Returns:
        ``classes`` (list, empty if there are no labels), ``preprocess`` (dict or None), ``name``, ``precision``,
        ``normalization`` ({"mean", "std"} that standard tools apply before a float input, or None), ``signatures``.

    Raises:
        UsageError: It is not a TFLite file, or its metadata cannot be read.
    """
    content = Path(path).read_bytes()
    if content[4:8] != b"TFL3":
        raise UsageError("not a TFLite file", where=str(path))
    classes, details = attached(content, str(path))
    model = schema.Model.GetRootAs(content)
    signatures = [model.SignatureDefs(i).SignatureKey().decode() for i in range(model.SignatureDefsLength())]
    return {
        "classes": classes,
        "preprocess": details.get("preprocess"),
        "name": details.get("name", ""),
        "precision": details.get("precision", ""),
        "normalization": _normalization(model),
        "signatures": signatures,
    }


def _shorten_names(graph: Any) -> None:
    """Leave one name of those that the converter strings together where it fuses operations."""
    for tensor in graph.tensors:
        tensor.name = tensor.name.split(b";")[0]


def _signature(graph: Any) -> Any:
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = SIGNATURE, 0
    signature.inputs, signature.outputs = [], []
    for tensors, maps in ((graph.inputs, signature.inputs), (graph.outputs, signature.outputs)):
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = graph.tensors[tensors[0]].name, int(tensors[0])
        maps.append(entry)
    return signature


def _standard(image: Any, settings: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation for tools that follow the standard; they leave uint8 pixels as they are.

    The network normalizes inside. Such tools normalize and then quantize with the input tensor's scale and zero point,
    so these constants have to undo that.
    """
    quantization = image.quantization
    if quantization is None or quantization.scale is None or not len(quantization.scale):
        return [0.0], [1.0]
    scale, zero = float(quantization.scale[0]), float(quantization.zeroPoint[0])
    return [zero], [round(1.0 / scale, 6)]


class _Buffer(schema.BufferT):
    """A buffer that keeps the schema's alignment of weights, which the generated Python code forgets."""

    def Pack(self, builder: _Builder) -> int:
        vector = builder.aligned(self.data) if self.data is not None and len(self.data) else 0
        schema.BufferStart(builder)
        if vector:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


class _Builder(flatbuffers.Builder):
    """Writes equal vectors once: shapes, constants, zero points.

    A kernel of an int8 file and its bias have eight bytes a channel of zero points, all zero: a tenth of MobileNetV2's
    file. A runtime wants as many of them as scales.
    """

    ALIGNMENT = 16  # of weights

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> int:
        return self._once(x.dtype.str, x.tobytes(), lambda _: super(_Builder, self).CreateNumpyVector(x))

    def aligned(self, data: Any) -> int:
        """A vector of bytes at a multiple of ``ALIGNMENT``."""
        return self._once("aligned", np.asarray(data, np.uint8).tobytes(), self._write_aligned)

    def _write_aligned(self, content: bytes) -> int:
        self.StartVector(1, len(content), self.ALIGNMENT)
        self.head -= len(content)
        self.Bytes[self.Head() : self.Head() + len(content)] = content
        return self.EndVector()

    def _once(self, kind: str, content: bytes, write: Callable[[bytes], int]) -> int:
        if (kind, content) not in self._written:
            self._written[kind, content] = write(content)
        return self._written[kind, content]


class _Writer:
    """Flatbuffers tables without generated code: children first, then the table that refers to them."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1024)

    def text(self, value: str) -> int:
        return self.builder.CreateString(value)

    def vector(self, offsets: Sequence[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return self.builder.EndVector()

    def floats(self, values: Sequence[float]) -> int:
        return self.builder.CreateNumpyVector(np.array(values, np.float32))

    def table(self, fields: int, offsets: dict[int, int] | None = None, **scalars: tuple[int, int]) -> int:
        """A table of ``fields`` slots; ``scalars`` are ``kind=(slot, value)`` with kind byte or uint."""
        self.builder.StartObject(fields)
        for slot, offset in (offsets or {}).items():
            self.builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
        for kind, (slot, value) in scalars.items():
            put = self.builder.PrependInt8Slot if kind.startswith("byte") else self.builder.PrependUint32Slot
            put(slot, value, 0)
        return self.builder.EndObject()


def _table(name: str, image: Any, settings: dict[str, Any], scores: str) -> bytes:
    """The ModelMetadata table; ``scores`` is the name of the output."""
    w = _Writer()
    mean, std = _standard(image, settings)
    options = w.table(2, {0: w.floats(mean), 1: w.floats(std)})
    normalize = w.table(2, {1: options}, byte=(0, _NORMALIZATION))
    size = w.table(2, uint_width=(0, int(image.shape[2])), uint_height=(1, int(image.shape[1])))
    properties = w.table(2, {1: size}, byte=(0, _RGB))
    picture = w.table(3, {1: properties}, byte=(0, _IMAGE))
    stats = w.table(2, {0: w.floats([255.0]), 1: w.floats([0.0])})
    source = w.table(
        7,
        {
            0: w.text("image"),
            1: w.text(f"RGB photo: {describe_preprocess(settings)}"),
            3: picture,
            4: w.vector([normalize]),
            5: stats,
        },
    )
    labels = w.table(5, {0: w.text(LABELS), 1: w.text("class names")}, byte=(2, _AXIS_LABELS))
    feature = w.table(3, {1: w.table(0)}, byte=(0, _FEATURE))
    answer = w.table(
        7, {0: w.text(scores), 1: w.text(f"{scores}, one a class"), 3: feature, 6: w.vector([labels])}
    )
    graph = w.table(10, {2: w.vector([source]), 3: w.vector([answer])})
    details = w.table(5, {0: w.text(DETAILS), 1: w.text("resize, crop, mean, std")}, byte=(2, 1))
    root = w.table(
        8,
        {
            0: w.text(name),
            1: w.text("image classification"),
            3: w.vector([graph]),
            6: w.vector([details]),
            7: w.text("1.0.0"),
        },
    )
    w.builder.Finish(root, _IDENTIFIER)
    return bytes(w.builder.Output())


def _normalization(model: Any) -> dict[str, list[float]] | None:
    """The first input's normalization in the standard table of ``model``."""
    for i in range(model.MetadataLength()):
        if model.Metadata(i).Name() == _ENTRY.encode():
            data = model.Buffers(model.Metadata(i).Buffer()).DataAsNumpy().tobytes()
            root = Table(data, flatbuffers.encode.Get(flatbuffers.packer.uoffset, data, 0))
            source = _child(_child(root, 3, first=True), 2, first=True)
            options = _child(_child(source, 4, first=True), 1) if source else None
            if options:
                return {"mean": _floats(options, 0), "std": _floats(options, 1)}
    return None


def _child(table: Table | None, slot: int, first: bool = False) -> Table | None:
    """The table in ``slot``, or the first of the vector there."""
    if table is None or not (offset := table.Offset(4 + 2 * slot)):
        return None
    position = table.Vector(offset) if first else table.Pos + offset
    return Table(table.Bytes, table.Indirect(position))


def _floats(table: Table, slot: int) -> list[float]:
    offset = table.Offset(4 + 2 * slot)
    return table.GetVectorAsNumpy(number_types.Float32Flags, offset).tolist() if offset else []
