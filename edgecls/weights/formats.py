"""The formats of weights files, by suffix. Importing this module does not import TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgecls.weights import hdf5, onnx, paddle, program
from edgecls.weights.readers import READERS, State

# An exported program: its operations in order, and its arrays by the names that the exporter gave them.
PROGRAMS: dict[str, Callable[[Path], tuple[list[program.Op], State]]] = {
    ".pdmodel": paddle.read_program,
    ".pdiparams": paddle.read_program,
    ".onnx": onnx.read_onnx,
}
# Keras' own files: arrays in Keras' layouts.
NATIVE: dict[str, Callable[[Path], State]] = {".keras": hdf5.read_keras, ".h5": hdf5.read_h5}
SUFFIXES = (*READERS, *PROGRAMS, *NATIVE)
