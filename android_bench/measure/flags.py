"""Flags of the programs that measure on a phone, by the kind of program."""

from __future__ import annotations

# Each program knows its own flags only. It warns of an unknown one, which counts as a failure.
DELEGATE_FLAGS: dict[str, dict[str, tuple[str, ...]]] = {
    "tflite": {"cpu": ("--use_xnnpack=true",), "gpu": ("--use_gpu=true",), "nnapi": ("--use_nnapi=true",)},
    "litert": {
        "cpu": ("--use_cpu=true", "--use_gpu=false", "--use_npu=false"),
        "gpu": ("--use_cpu=true", "--use_gpu=true", "--use_npu=false"),
        "npu": ("--use_cpu=true", "--use_gpu=false", "--use_npu=true"),
    },
    "edgecls": {"cpu": ()},
}
DELEGATE_NAMES = {"cpu": "XNNPACK", "gpu": "GPU", "nnapi": "NNAPI", "npu": "NPU"}
PROFILE_OFF = {"tflite": ("--enable_op_profiling=false",), "litert": ("--use_profiler=false",)}
PROFILE_ON = {"tflite": ("--enable_op_profiling=true",), "litert": ("--use_profiler=true",)}
_REPORT_PEAK = "--report_peak_memory_footprint=true"
PEAK_ON = {"tflite": (_REPORT_PEAK,), "litert": (_REPORT_PEAK,)}
