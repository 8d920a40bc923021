"""TensorFlow's converter in a process of its own; ``edgecls.export.conversion`` starts it.

The converter keeps the memory that it has taken, and some of its faults end the process. A task is the path of a folder
with ``graph.pb`` and ``request.json``. The copy writes ``model.tflite`` or, if the converter raises, ``error.txt`` there.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edgecls.copies import serve
from edgecls.quiet import import_tensorflow

GRAPH, REQUEST, FILE, ERROR = "graph.pb", "request.json", "model.tflite", "error.txt"


def prepare() -> None:
    """Import what a conversion takes."""
    import_tensorflow()
    from tensorflow.lite.python import lite  # noqa: F401


def run(folder: Path) -> int:
    """Convert what is in a folder; the exit code."""
    try:
        request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
        content = convert(folder / GRAPH, **request)
        (folder / FILE).write_bytes(content)
    except BaseException as error:  # the converter raises whatever its passes raise
        text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        for name in (GRAPH, FILE):  # room for the error if the disk is full
            (folder / name).unlink(missing_ok=True)
        (folder / ERROR).write_text(text, encoding="utf-8")
        return 1
    return 0


def convert(
    graph: Path, image: Any, logits: Any, optimized: bool, input_type: str, output_type: str
) -> bytes:
    """The flatbuffer of a frozen graph.

    Args:
        graph: File of a ``GraphDef``.
        image: Name, shape and type of the tensor that it takes.
        logits: Likewise of the tensor that it gives.
        optimized: Whether the converter may round weights.
        input_type: Type of what the file takes.
        output_type: Type of what the file gives.
    """
    import tensorflow as tf
    from tensorflow.lite.python.lite import TFLiteConverterBaseV2

    definition = tf.compat.v1.GraphDef.FromString(graph.read_bytes())
    converter = TFLiteConverterBaseV2()
    # It asks for a function, and of that for the lines of Python that made a node which it cannot convert.
    converter._funcs, converter._trackable_obj = [SimpleNamespace(graph=tf.Graph())], None
    converter.inference_input_type = tf.as_dtype(input_type)
    converter.inference_output_type = tf.as_dtype(output_type)
    if optimized:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    ends = ([tf.TensorSpec(shape, dtype, name)] for name, shape, dtype in (image, logits))
    return bytes(converter.convert(definition, *ends))


if __name__ == "__main__":
    serve(prepare, lambda task: run(Path(task)), lambda task: shutil.rmtree(task, ignore_errors=True))
