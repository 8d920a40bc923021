"""``edgecls doctor``: what works on this computer, and what to do about the rest. Imports nothing heavy."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from edgecls.environment import cores, cpu_flags, cpu_model, int8_instructions, memory_gib, version
from edgecls.text import plural

DISK_GIB = 2.0  # a run with its checkpoints and TensorBoard files
MEMORY_GIB = 4.0  # TensorFlow, a MobileNetV3 as teacher and a batch
NO_VNNI = "no AVX-512 VNNI: int8 is hardly faster than float on this computer"
# The exact set that edgecls was measured with; only a checkout has this file.
CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"

# Imports the stack, converts one layer and runs it. It has its own process: this one must not import TensorFlow.
_PROBE = """
import json, os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import tensorflow as tf
import keras
gpus = len(tf.config.list_physical_devices("GPU"))
eye = tf.constant(np.eye(4, dtype=np.float32))
layer = tf.function(lambda x: tf.nn.relu(tf.matmul(x, eye)), input_signature=[tf.TensorSpec((1, 4), tf.float32)])
model = tf.lite.TFLiteConverter.from_concrete_functions([layer.get_concrete_function()]).convert()
print("EDGECLS " + json.dumps({"tensorflow": tf.__version__, "keras": keras.__version__, "gpus": gpus}), flush=True)
from ai_edge_litert.interpreter import Interpreter
run = Interpreter(model_content=model)
run.allocate_tensors()
run.set_tensor(run.get_input_details()[0]["index"], np.array([[-1, 0, 1, 2]], np.float32))
run.invoke()
assert run.get_tensor(run.get_output_details()[0]["index"]).tolist() == [[0, 0, 1, 2]], "wrong result"
operators = [op["op_name"] for op in run._get_ops_details()]
print("EDGECLS " + json.dumps({"xnnpack": "DELEGATE" in operators}), flush=True)
"""


class Check(NamedTuple):
    """One line of the result.

    Attributes:
        name: What was checked.
        status: ``ok``; ``warn``, it works with a restriction; ``missing``, something will fail.
        found: What there is.
        fix: What the user can do, "" for nothing.
    """

    name: str
    status: str
    found: str
    fix: str = ""


def examine() -> dict[str, Any]:
    """Make all checks.

    Returns:
        ``{"schema", "ok", "checks": [{"name", "status", "found", "fix"}]}``; ``ok`` means that nothing is missing.
    """
    checks = [*_packages(), *_stack(), *_phones(), _disk(), *_computer()]
    return {
        "schema": "edgecls.doctor/1",
        "ok": all(c.status != "missing" for c in checks),
        "checks": [c._asdict() for c in checks],
    }


def _packages() -> list[Check]:
    """Python and the installed packages against the ranges that edgecls asks for.

    A missing package of an extra is a warning: only some commands need it.
    """
    try:
        about = metadata.metadata("edgecls")
    except metadata.PackageNotFoundError:
        return [Check("edgecls", "warn", "runs from its source", "install it: pip install -e '.[all]'")]
    python, wanted = platform.python_version(), about["Requires-Python"]
    supported = SpecifierSet(wanted).contains(python, prereleases=True)
    checks = [
        Check("python", "ok", python) if supported else Check("python", "warn", python, f"use {wanted}")
    ]
    measured = _measured()
    for requirement in map(Requirement, metadata.requires("edgecls") or []):
        extra = _extra(requirement, about.get_all("Provides-Extra") or [])
        if extra not in (None, "dev"):
            checks.append(_package(requirement, extra, measured.get(_normalized(requirement.name))))
    return checks


def _extra(requirement: Requirement, extras: list[str]) -> str | None:
    """The extra a requirement belongs to, "" for none; None if this Python or system does not need it."""
    marker = requirement.marker
    return next((e for e in ("", *extras) if marker is None or marker.evaluate({"extra": e})), None)


def _package(requirement: Requirement, extra: str, measured: str | None) -> Check:
    name, found = requirement.name, version(requirement.name)
    install = f"pip install '{name}{requirement.specifier}'"
    if found is None:
        return (
            Check(name, "warn", "not installed", f"pip install 'edgecls[{extra}]'")
            if extra
            else Check(name, "missing", "not installed", install)
        )
    if not requirement.specifier.contains(found, prereleases=True):
        return Check(name, "warn", found, install)
    note = f" (measured with {measured})" if measured not in (None, found) else ""
    return Check(name, "ok", found + note)


def _measured() -> dict[str, str]:
    """Versions of ``constraints.txt`` by package."""
    try:
        lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pins = (line.split("#")[0].partition("==") for line in lines)
    return {_normalized(name): pin.partition(";")[0].strip() for name, equal, pin in pins if equal}


def _normalized(name: str) -> str:
    """A package's name as indexes compare it."""
    return name.strip().lower().replace("_", "-").replace(".", "-")


def _stack() -> list[Check]:
    """TensorFlow imports and converts; LiteRT runs what was converted."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=300, check=False
        )
    except subprocess.TimeoutExpired:
        return [Check("tensorflow import", "missing", "no answer within 300 s", "is the computer very busy?")]
    answer: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        if line.startswith("EDGECLS "):
            answer.update(json.loads(line.removeprefix("EDGECLS ")))
    errors = done.stderr.strip().splitlines()
    why = errors[-1][:200] if errors else f"exit code {done.returncode}"
    reinstall = "reinstall: pip install --force-reinstall "
    if "tensorflow" not in answer:
        return [Check("tensorflow import", "missing", why, reinstall + "tensorflow")]
    found = f"{answer['tensorflow']}, keras {answer['keras']}, {plural(answer['gpus'], 'GPU')}; converts"
    checks = [Check("tensorflow import", "ok", found)]
    if "xnnpack" not in answer:
        return [*checks, Check("litert run", "missing", why, reinstall + "ai-edge-litert")]
    if not answer["xnnpack"]:
        return [*checks, Check("litert run", "warn", "without XNNPACK", "int8 will be slow on this computer")]
    return [*checks, Check("litert run", "ok", "runs a layer through XNNPACK")]


def _phones() -> list[Check]:
    from android_bench.adb.address import adb_server_address
    from android_bench.devices.attached import attached
    from android_bench.errors import BenchUsageError

    program = shutil.which("adb")
    try:
        phones, server = attached(), adb_server_address()
    except BenchUsageError as error:
        return [Check("phones", "warn", f"{error.what} ({error.where})", error.fix)]
    fix = "plug a phone in and allow USB debugging; only needed for --device other than host"
    listed = ", ".join(f"{p.serial} ({p.state})" for p in phones)
    return [
        Check("adb", "ok", program)
        if program
        else Check("adb", "warn", "no program", "apt install adb; only for phones"),
        Check("phones", "ok", listed) if phones else Check("phones", "warn", f"none, {_server(server)}", fix),
    ]


def _server(address: tuple[str, int] | str) -> str:
    from android_bench.adb.address import connect

    where = f"at {address}" if isinstance(address, str) else f"on port {address[1]}"
    try:
        with connect(address, 1):
            return f"adb server {where}"
    except OSError:
        return f"no adb server {where}"


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    status = "ok" if free >= DISK_GIB else "warn" if free >= DISK_GIB / 10 else "missing"
    fix = "" if status == "ok" else f"free some space: a run takes up to {DISK_GIB:g} GiB"
    return Check("disk, this folder", status, f"{free:.1f} GiB free", fix)


def _computer() -> list[Check]:
    memory = memory_gib()
    scarce = memory is not None and memory < MEMORY_GIB
    fix = "lower train.batch_size and set data.cache: false" if scarce else ""
    return [
        Check("processor", "ok", f"{cpu_model()}, {plural(cores(), 'core')}", _int8_note(cpu_flags())),
        Check(
            "memory", "warn" if scarce else "ok", f"{memory} GiB" if memory is not None else "unknown", fix
        ),
    ]


def _int8_note(flags: set[str]) -> str:
    """What to know before int8 is timed on this computer; phones have instructions of their own for it."""
    x86 = "sse2" in flags
    return NO_VNNI if x86 and not int8_instructions(flags) else ""
