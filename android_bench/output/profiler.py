"""Times of single operators on this computer. ``host`` runs this file as a process of its own and never imports it.

    python profiler.py MODEL THREADS RUNS

LiteRT's Python interface does not give such times, so this calls the C interface of the library in the same package.
That interface may change with any release. If something is missing or crashes, only this process ends. It prints the
runtime's own table, which ``parse.parse_profile`` reads; on failure it prints a line on stderr (exit code 1).
"""

from __future__ import annotations

import array
import ctypes
import importlib.util
import random
import sys
from ctypes import byref, c_char_p, c_int, c_size_t, c_void_p
from pathlib import Path
from typing import Any

_CPU, _ALIGNMENT, _FLOAT32, _WARMUP = 1, 64, 1, 10


class _TensorType(ctypes.Structure):
    _fields_ = [
        ("element", ctypes.c_int32),
        ("rank", ctypes.c_uint32),
        ("dimensions", ctypes.c_int32 * 8),
        ("strides", ctypes.c_uint32 * 8),
    ]


class Library:
    """LiteRT's C functions. Each returns 0, or a status that is raised as RuntimeError."""

    def __init__(self) -> None:
        package = importlib.util.find_spec("ai_edge_litert")
        if package is None or package.origin is None:
            raise RuntimeError("ai-edge-litert is not installed")
        self._library = ctypes.CDLL(str(Path(package.origin).with_name("libLiteRt.so")))
        self._kept: list[Any] = []  # what the library only has a pointer to

    def call(self, name: str, *arguments: Any) -> None:
        """Calls ``LiteRt<name>``. Raises RuntimeError with its status."""
        status = getattr(self._library, f"LiteRt{name}")(*arguments)
        if status:
            raise RuntimeError(f"{name} failed (LiteRT status {status})")

    def make(self, name: str, *arguments: Any) -> c_void_p:
        """The handle that a function gives through its last argument."""
        handle = c_void_p()
        self.call(name, *arguments, byref(handle))
        return handle

    def option(self, options: c_void_p, kind: bytes, text: bytes) -> None:
        """Adds an option that is a text in TOML."""
        payload = ctypes.create_string_buffer(text)
        release = ctypes.CFUNCTYPE(None, c_void_p)(lambda pointer: None)
        self._kept += [payload, release]
        self.call("AddOpaqueOptions", options, self.make("CreateOpaqueOptions", kind, payload, release))

    def tensors(self, kind: str, signature: c_void_p, compiled: c_void_p) -> tuple[c_size_t, Any]:
        """Buffers for all inputs or outputs, filled at random: their number, and an array of handles."""
        count = c_size_t()
        self.call(f"GetNumSignature{kind}s", signature, byref(count))
        handles = []
        for index in range(count.value):
            tensor = self.make(f"GetSignature{kind}TensorByIndex", signature, c_size_t(index))
            about, size = _TensorType(), c_size_t()
            self.call("GetRankedTensorType", tensor, byref(about))
            needs = self.make(
                f"GetCompiledModel{kind}BufferRequirements", compiled, c_size_t(0), c_size_t(index)
            )
            self.call("GetTensorBufferRequirementsBufferSize", needs, byref(size))
            memory = ctypes.create_string_buffer(size.value + _ALIGNMENT)
            start = ctypes.addressof(memory) + -ctypes.addressof(memory) % _ALIGNMENT
            content = _random(about.element, size.value)
            ctypes.memmove(start, content, len(content))
            self._kept += [memory, about]
            handles.append(
                self.make("CreateTensorBufferFromHostMemory", byref(about), c_void_p(start), size, None).value
            )
        return count, (c_void_p * len(handles))(*handles)


def _random(element: int, size: int) -> bytes:
    """Any byte, but floats from [0, 1)."""
    rng = random.Random(0)
    if element == _FLOAT32:
        return array.array("f", (rng.random() for _ in range(size // 4))).tobytes()
    return rng.randbytes(size)


def profile(path: str, threads: int, runs: int) -> str:
    """The runtime's table of operators over ``runs`` inferences. Raises RuntimeError."""
    lib = Library()
    environment = lib.make("CreateEnvironment", c_int(0), None)
    model = lib.make("CreateModelFromFile", environment, path.encode())
    options = lib.make("CreateOptions")
    lib.call("SetOptionsHardwareAccelerators", options, c_int(_CPU))
    lib.option(options, b"xnnpack", f"num_threads = {threads}\n".encode())
    lib.option(options, b"runtime_options_string", b"enable_profiling = true\n")
    compiled = lib.make("CreateCompiledModel", environment, model, options)
    profiler = lib.make("CompiledModelGetProfiler", compiled)
    if not profiler:
        raise RuntimeError("this LiteRT has no profiler")
    signature = lib.make("GetModelSignature", model, c_size_t(0))
    inputs = lib.tensors("Input", signature, compiled)
    outputs = lib.tensors("Output", signature, compiled)

    def run(times: int) -> None:
        for _ in range(times):
            lib.call("RunCompiledModel", compiled, c_size_t(0), *inputs, *outputs)

    run(_WARMUP)
    lib.call("ResetProfiler", profiler)
    lib.call("StartProfiler", profiler)
    run(runs)
    lib.call("StopProfiler", profiler)
    summary = c_char_p()
    lib.call("GetProfileSummary", profiler, compiled, byref(summary))
    return (summary.value or b"").decode("utf-8", "replace")


def main() -> None:
    """The command line."""
    try:
        print(profile(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
    except (RuntimeError, OSError, AttributeError) as error:
        print(f"no profile: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
