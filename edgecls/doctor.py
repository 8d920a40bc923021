"""``edgecls doctor``: what works on this computer, and what to do about what does not. Imports nothing heavy."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from edgecls.environment import cores, cpu_model, memory_gib, version

DISK_GIB = 2.0  # a run with its checkpoints and TensorBoard files
MEMORY_GIB = 4.0  # TensorFlow, a small teacher and a batch

# Imports the stack, converts one layer and runs it, in a process of its own: TensorFlow must not come in here.
_PROBE = """
import json, os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import tensorflow as tf
import keras
said = {"tensorflow": f"{tf.__version__}, keras {keras.__version__}", "gpus": len(tf.config.list_physical_devices("GPU"))}
eye = tf.constant(np.eye(4, dtype=np.float32))
layer = tf.function(lambda x: tf.nn.relu(tf.matmul(x, eye)), input_signature=[tf.TensorSpec((1, 4), tf.float32)])
model = tf.lite.TFLiteConverter.from_concrete_functions([layer.get_concrete_function()]).convert()
print("EDGECLS " + json.dumps(said), flush=True)
from ai_edge_litert.interpreter import Interpreter
run = Interpreter(model_content=model)
run.allocate_tensors()
run.set_tensor(run.get_input_details()[0]["index"], np.array([[-1, 0, 1, 2]], np.float32))
run.invoke()
assert run.get_tensor(run.get_output_details()[0]["index"]).tolist() == [[0, 0, 1, 2]], "wrong result"
ops = [op["op_name"] for op in run._get_ops_details()]
print("EDGECLS " + json.dumps({"litert": "runs a layer", "xnnpack": "DELEGATE" in ops}), flush=True)
"""


class Check(NamedTuple):
    """One line: ``status`` is ``ok``, ``warn`` (works, but) or ``missing`` (something will fail)."""

    name: str
    status: str
    found: str
    fix: str = ""


def examine() -> dict[str, Any]:
    """All checks, as ``{"schema", "ok", "checks": [{"name", "status", "found", "fix"}]}``."""
    checks = [_python(), *_packages(), *_stack(), *_phones(), _disk(), *_computer()]
    return {
        "schema": "edgecls.doctor/1",
        "ok": all(c.status != "missing" for c in checks),
        "checks": [c._asdict() for c in checks],
    }


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= (3, 11)
    return Check("python", "ok" if good else "missing", found, "" if good else "use Python 3.11 or newer")


def _packages() -> list[Check]:
    """Installed versions against what edgecls asks for; extras that are absent are only worth a warning."""
    try:
        wanted = metadata.requires("edgecls") or []
    except metadata.PackageNotFoundError:
        return [Check("edgecls", "warn", "runs from its source", "install it: pip install -e .")]
    checks = []
    for line in wanted:
        match = re.match(r"([\w.-]+)\s*(?:([=>]=)\s*([\w.]+))?(?:.*extra == ['\"](\w+)['\"])?", line)
        if match is None or match[4] == "dev":
            continue
        name, sign, pin, extra = match.groups()
        found = version(name)
        if found is None:
            install = (
                f"pip install 'edgecls[{extra}]'" if extra else f"pip install '{name}{sign or ''}{pin or ''}'"
            )
            checks.append(Check(name, "warn" if extra else "missing", "not installed", install))
        elif (sign == "==" and found != pin) or (sign == ">=" and _numbers(found) < _numbers(pin)):
            fix = f"pip install '{name}{sign}{pin}', the version edgecls was measured with"
            checks.append(Check(name, "warn", found, fix))
        else:
            checks.append(Check(name, "ok", found))
    return checks


def _numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def _stack() -> list[Check]:
    """TensorFlow imports and converts; LiteRT runs what was converted."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=300, check=False
        )
        errors = done.stderr.strip().splitlines()
    except subprocess.TimeoutExpired:
        return [Check("tensorflow import", "missing", "no answer within 300 s", "is the computer very busy?")]
    said: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        if line.startswith("EDGECLS "):
            said.update(json.loads(line.removeprefix("EDGECLS ")))
    why = errors[-1][:200] if errors else f"exit code {done.returncode}"
    if "tensorflow" not in said:
        return [
            Check("tensorflow import", "missing", why, "reinstall: pip install --force-reinstall tensorflow")
        ]
    gpus = said["gpus"]
    found = f"{said['tensorflow']}, {gpus} GPU{'s' * (gpus != 1)}; converts"
    checks = [Check("tensorflow import", "ok", found)]
    if "litert" not in said:
        return [
            *checks,
            Check("litert run", "missing", why, "reinstall: pip install --force-reinstall ai-edge-litert"),
        ]
    if not said["xnnpack"]:
        return [*checks, Check("litert run", "warn", "without XNNPACK", "int8 will be slow on this computer")]
    return [*checks, Check("litert run", "ok", "runs a layer through XNNPACK")]


def _phones() -> list[Check]:
    from android_bench.attached import adb_server_address, attached

    program = shutil.which("adb")
    phones = attached()
    fix = "plug a phone in and allow USB debugging; only needed for --device other than host"
    listed = ", ".join(f"{p.serial} ({p.state})" for p in phones)
    return [
        Check("adb", "ok", program)
        if program
        else Check("adb", "warn", "no program", "apt install adb; only for phones"),
        Check("phones", "ok", listed)
        if phones
        else Check("phones", "warn", f"none, {_server(adb_server_address())}", fix),
    ]


def _server(address: tuple[str, int]) -> str:
    import socket

    try:
        with socket.create_connection(address, timeout=1):
            return f"adb server on port {address[1]}"
    except OSError:
        return f"no adb server on port {address[1]}"


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    status = "ok" if free >= DISK_GIB else "warn" if free >= DISK_GIB / 10 else "missing"
    fix = "" if status == "ok" else f"free some space: a run takes up to {DISK_GIB:g} GiB"
    return Check("disk, this folder", status, f"{free:.1f} GiB free", fix)


def _computer() -> list[Check]:
    memory = memory_gib()
    small = memory is not None and memory < MEMORY_GIB
    fix = "lower train.batch_size and set data.cache: false" if small else ""
    return [
        Check("processor", "ok", f"{cpu_model()}, {cores()} core{'s' * (cores() != 1)}"),
        Check("memory", "warn" if small else "ok", f"{memory} GiB" if memory is not None else "unknown", fix),
    ]
