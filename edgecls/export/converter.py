"""TensorFlow's converter in a process of its own; ``edgecls.export.conversion`` starts it.

The converter keeps the memory that it has taken, and some of its faults end the process. So each conversion has a copy of
a process that has imported TensorFlow and computed nothing, which therefore has one thread and can be copied at once.

A line of stdin is the path of a folder with ``graph.pb`` and ``request.json``. The copy writes ``model.tflite`` or, if
the converter raises, ``error.txt`` there. The answer is a line with its exit code: 0, 1, or less than 0 if a signal ended
it.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edgecls.quiet import import_tensorflow

GRAPH, REQUEST, FILE, ERROR = "graph.pb", "request.json", "model.tflite", "error.txt"


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the converter prints is no answer
    import_tensorflow()
    from tensorflow.lite.python import lite  # noqa: F401  # so that copies need not import it

    while line := sys.stdin.readline():
        folder = Path(line.rstrip("\n"))
        child = os.fork()
        if not child:
            os._exit(run(folder))
        finished = os.pidfd_open(child)
        gone = finished not in select.select([finished, sys.stdin], [], [])[0]  # who asked
        if gone:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(finished)
        if gone:
            shutil.rmtree(folder, ignore_errors=True)
            break
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def run(folder: Path) -> int:
    """Convert what is in a folder; the exit code."""
    try:
        request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
        content = convert((folder / GRAPH).read_bytes(), **request)
        (folder / FILE).write_bytes(content)
    except BaseException as error:  # the converter raises whatever its passes raise
        text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        for name in (GRAPH, FILE):  # room for the error if the disk is full
            (folder / name).unlink(missing_ok=True)
        (folder / ERROR).write_text(text, encoding="utf-8")
        return 1
    return 0


def convert(
    graph: bytes, image: Any, logits: Any, optimized: bool, input_type: str, output_type: str
) -> bytes:
    """The flatbuffer of a frozen graph.

    Args:
        graph: A ``GraphDef``.
        image: Name, shape and type of the tensor that it takes.
        logits: Likewise of the tensor that it gives.
        optimized: Whether the converter may round weights.
        input_type: Type of what the file takes.
        output_type: Type of what the file gives.
    """
    import tensorflow as tf
    from tensorflow.lite.python.lite import TFLiteConverterBaseV2

    converter = TFLiteConverterBaseV2()
    # It asks for a function, and of that for the lines of Python that made a node which it cannot convert.
    converter._funcs, converter._trackable_obj = [SimpleNamespace(graph=tf.Graph())], None
    converter.inference_input_type = tf.as_dtype(input_type)
    converter.inference_output_type = tf.as_dtype(output_type)
    if optimized:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    ends = ([tf.TensorSpec(shape, dtype, name)] for name, shape, dtype in (image, logits))
    return bytes(converter.convert(tf.compat.v1.GraphDef.FromString(graph), *ends))


if __name__ == "__main__":
    main()
