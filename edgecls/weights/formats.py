"""The formats of weights files, by suffix. Importing this module does not import TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgecls.weights import hdf5, onnx, paddle, program, readers
from edgecls.weights.readers import State
from edgecls.weights.safetensors import read_safetensors

# Arrays by the names of the network that they were saved from.
READERS: dict[str, Callable[[str | Path], State]] = {
    ".pdparams": readers.read_pdparams,
    ".pth": readers.read_torch,
    ".pt": readers.read_torch,
    ".pth.tar": readers.read_torch,
    ".bin": readers.read_torch,
    ".safetensors": read_safetensors,
    ".npz": readers.read_npz,
    ".pkl": readers.read_pickle,
}
TORCH = {".pth", ".pt", ".pth.tar", ".bin", ".safetensors"}
"""Suffixes of files whose names and layouts are PyTorch's."""

# An exported program: its operations in order, and its arrays by the names that the exporter gave them.
PROGRAMS: dict[str, Callable[[Path], tuple[list[program.Op], State]]] = {
    ".pdmodel": paddle.read_program,
    ".pdiparams": paddle.read_program,
    ".onnx": onnx.read_onnx,
}
# Keras' own files: arrays in Keras' layouts.
NATIVE: dict[str, Callable[[Path], State]] = {
    ".keras": hdf5.read_keras,
    ".h5": hdf5.read_h5,
    ".hdf5": hdf5.read_h5,
}
SUFFIXES = (*READERS, *PROGRAMS, *NATIVE)
# Files that lie beside weights, or are taken for them: what they are, and what to name in their place.
OTHERS = {
    ".pdopt": ("this is the state of an optimizer, not of a network", "name the .pdparams beside it"),
    ".json": (
        "a PaddlePaddle 3 program cannot be read",
        "name the .pdparams of the training, or export a .pdmodel (FLAGS_enable_pir_api=0)",
    ),
    ".info": ("this only describes a program", "name the .pdmodel beside it"),
    ".tflite": (
        "a .tflite file is for inference",
        "name the .keras file or the checkpoint that it was made from",
    ),
    ".pb": ("a SavedModel's graph has no weights", "name a .keras file, or the checkpoint it was made from"),
}


def suffix(path: str | Path) -> str:
    """The suffix that tells a file's format, in lower case: ``.pth.tar`` of ``NET.PTH.TAR``."""
    name = Path(path).name.lower()
    return ".pth.tar" if name.endswith(".pth.tar") else Path(name).suffix
