"""The raw outputs that a model computes on a phone for given inputs, to compare with those of another computer."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from android_bench.adb.link import open_link
from android_bench.devices.naming import resolve
from android_bench.errors import BenchError, BenchUsageError
from android_bench.measure.phone import PhoneBackend
from android_bench.measure.protocol import Listener
from android_bench.models import ModelFile, find_models
from android_bench.output.parse import ParseError, check_failure

_START_S = 60.0
_INFERENCE_S = 5.0


@dataclass(frozen=True)
class Answers:
    """Outputs of models on a phone.

    Attributes:
        device: The phone's name and chip.
        outputs: For each model the bytes of its outputs, one input after the other.
    """

    device: str
    outputs: tuple[bytes, ...]


def outputs(
    cases: Sequence[tuple[str | Path, bytes, int]],
    device: str,
    *,
    binary: str | Path | None = None,
    threads: int = 1,
    on_event: Listener | None = None,
) -> Answers:
    """Runs models on a phone, batch 1, with our own program there.

    Args:
        cases: For each model its file, the bytes of all its inputs one after the other, and the number of inputs.
        device: What ``--device`` may be, but not ``host``.
        binary: ``edgecls_runner`` for the phone; None: as ``binary.find_binary`` finds it.
        threads: Number of threads of the runtime.
        on_event: Called with ``authorize`` when the phone asks whether to trust this computer.

    Raises:
        BenchUsageError: The device is this computer, a file is not TFLite, or the program prints times only.
        DeviceMissing: The phone, its space, or the program is missing.
        BenchError: The program does not load or run a model.
    """
    models = find_models([path for path, _, _ in cases])
    target = resolve(device)
    if target.kind == "host":
        raise BenchUsageError("the outputs of this computer are what a phone's are compared with")
    link = open_link(
        target.serial, target.via, on_auth=lambda: on_event({"event": "authorize"}) if on_event else None
    )
    try:
        phone = PhoneBackend(link, target, binary, on_event=on_event)
        if not phone.ours:
            raise BenchUsageError(
                "this program tells no outputs, only times",
                where=str(phone.binary),
                fix="give --binary edgecls_runner, which android_bench/runner/build.sh builds",
            )
        about = phone.describe()
        answers = [
            _compute(phone, model, data, count, threads)
            for model, (_, data, count) in zip(models, cases, strict=True)
        ]
        return Answers(f"{about['name']} ({about['cpu']})" if about["cpu"] else about["name"], tuple(answers))
    finally:
        link.close()


def _compute(phone: PhoneBackend, model: ModelFile, data: bytes, count: int, threads: int) -> bytes:
    link, remote = phone.link, phone.push(model)
    inputs = f"{link.folder}/{hashlib.sha256(data).hexdigest()[:16]}.inputs"
    result = f"{link.folder}/outputs"
    flags = {"graph": remote, "num_threads": threads, "input": inputs, "output": result}
    program = " ".join([phone.program, *(shlex.quote(f"--{name}={value}") for name, value in flags.items())])
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "inputs"
        local.write_bytes(data)
        link.push(local, inputs)
    try:
        done = phone.run(program, _START_S + count * _INFERENCE_S)
        try:
            check_failure(done.output, done.code)
        except ParseError as error:
            raise BenchError(f"{model.name}: {error.what}", where=link.where) from None
        size = re.search(rf"^outputs (\d+) bytes\nend {count}$", done.output, re.MULTILINE)
        answer = link.read(result) if size else b""
        if size is None or len(answer) != int(size[1]):
            raise BenchError(f"{model.name}: the phone did not compute {count} outputs", where=link.where)
        return answer
    finally:
        with contextlib.suppress(BenchError):
            link.run(f"rm -f {shlex.quote(inputs)} {shlex.quote(result)}")
