"""Our own program for ARM Linux, built here for this computer: what it prints, computes and refuses."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from android_bench.devices.binary import find_binary, library_of
from android_bench.errors import DeviceMissing
from android_bench.measure.worker import runtime
from android_bench.output.parse import ParseError, parse

SOURCE = Path(__file__).parents[1] / "android_bench/runner/edgecls_runner.c"
COMPILER = shutil.which("cc") or shutil.which("gcc")
SAID = """INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
edgecls runner 1
threads 2
init_us 1234.500
first_us 900.000
warmup_us 2 810.000 800.000
runs_us 5 700.000 750.000 800.000 720.000 760.000
memory_kb init=2048 overall=3072 peak=10240
end 5
"""

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler (Debian: apt install gcc)")


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runner")
    program = folder / "edgecls_runner"
    warnings = ["-Wall", "-Wextra", "-Werror"]
    subprocess.run([str(COMPILER), "-O1", *warnings, "-o", program, SOURCE, "-ldl"], check=True)
    spec = find_spec("ai_edge_litert")
    assert spec and spec.submodule_search_locations
    (folder / "libLiteRt.so").symlink_to(Path(spec.submodule_search_locations[0]) / "libLiteRt.so")
    return program


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small float network with a uint8 input."""
    import keras

    from edgecls.export.tflite import to_tflite
    from edgecls.zoo.layers import Normalize

    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(4, 3, activation="relu")(Normalize([0.5] * 3, [0.25] * 3)(image))
    network = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(x)), name="small")
    preprocess = {
        "size": 8,
        "resize_short": 8,
        "interpolation": "bilinear",
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
    }
    return to_tflite(
        network, tmp_path_factory.mktemp("model") / "m.tflite", "fp32", ["a", "b", "c"], preprocess
    )


def run(runner: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([runner, *flags], capture_output=True, text=True, timeout=60)


@needs_compiler
def test_figures(runner: Path, model: Path) -> None:
    flags = ["--warmup_runs=3", "--warmup_min_secs=0", "--num_runs=7", "--min_secs=0", "--num_threads=2"]
    done = run(runner, f"--graph={model}", *flags)
    said = parse(done.stderr + done.stdout, done.returncode)
    assert (said.kind, said.warmup.count, said.runs.count) == ("edgecls", 3, 7)
    assert len(said.samples_ms) == 7 and said.delegates == ("XNNPACK",)
    assert said.runs.median_ms == np.median(said.samples_ms) and said.init_ms > 0 and said.first_ms > 0
    assert (
        said.peak_mib and said.overall_delta_mib is not None and said.peak_mib > said.overall_delta_mib >= 0
    )


@needs_compiler
def test_seconds_count_as_well(runner: Path, model: Path) -> None:
    flags = ["--warmup_runs=1", "--warmup_min_secs=0.05", "--num_runs=1", "--min_secs=0.1"]
    said = parse((done := run(runner, f"--graph={model}", *flags)).stdout, done.returncode)
    assert 0.045 < sum(said.samples_ms) / 1e3 < 2 and said.warmup.count > 1
    capped = run(runner, f"--graph={model}", "--num_runs=100000000", "--min_secs=0", "--max_secs=0.1")
    assert 1 <= parse(capped.stdout, capped.returncode).runs.count < 100_000_000


@needs_compiler
def test_outputs_are_those_of_the_interpreter(runner: Path, model: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    interpreter = runtime()[0](model_path=str(model))
    interpreter.allocate_tensors()
    wanted = []
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        wanted.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    (tmp_path / "in").write_bytes(images.tobytes())
    done = run(runner, f"--graph={model}", f"--input={tmp_path}/in", f"--output={tmp_path}/out")
    assert done.returncode == 0 and done.stdout.endswith("inputs 5 of 192 bytes\noutputs 60 bytes\nend 5\n")
    assert np.array_equal(np.fromfile(tmp_path / "out", np.float32).reshape(5, 3), np.stack(wanted))


@needs_compiler
@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--graph=nowhere.tflite"], 1, "reading the model failed"),
        ([f"--graph={SOURCE}"], 1, "reading the model failed"),
        (["--graph=MODEL", "--library=nowhere.so"], 1, "cannot load LiteRT"),
        (["--graph=MODEL", "--library=libc.so.6"], 1, "has no LiteRt"),
        (["--graph=MODEL", f"--input={SOURCE}", "--output=out"], 1, "whole number of inputs of 192 bytes"),
        (["--graph=MODEL", "--input=nowhere", "--output=out"], 1, "cannot read: nowhere"),
        (["--graph=MODEL", "--input=in"], 2, "need each other"),
        (["--graph=MODEL", "--num_threads=0"], 2, "--num_threads=0"),
        (["--graph=MODEL", "--num_runs=many"], 2, "--num_runs=many"),
        (["--graph=MODEL", "--use_gpu=true"], 2, "unknown flag: --use_gpu"),
        (["graph"], 2, "not a flag: graph"),
        ([], 2, "which model?"),
    ],
)
def test_refusals(
    flags: list[str],
    code: int,
    says: str,
    runner: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(runner, *(flag.replace("MODEL", str(model)) for flag in flags))
    last = done.stderr.splitlines()[-1]
    assert done.returncode == code and last.startswith("edgecls_runner: ") and says in last
    with pytest.raises(ParseError, match=re.escape(says)):
        parse(done.stderr + done.stdout, done.returncode)


def test_output_is_read() -> None:
    said = parse(SAID)
    assert (said.kind, said.init_ms, said.first_ms) == ("edgecls", 1.2345, 0.9)
    assert said.samples_ms == (0.7, 0.75, 0.8, 0.72, 0.76) and said.delegates == ("XNNPACK",)
    assert (said.runs.median_ms, said.runs.min_ms, said.runs.max_ms) == (0.75, 0.7, 0.8)
    assert said.runs.mean_ms == pytest.approx(0.746) and said.warmup.count == 2
    assert (said.init_delta_mib, said.overall_delta_mib, said.peak_mib) == (2, 3, 10)


def test_torn_output_is_refused() -> None:
    """Cut anywhere, or with any one line missing or any digit of a count changed."""
    begin = SAID.index("edgecls")
    for end in range(begin, len(SAID)):
        with pytest.raises(ParseError):
            parse(SAID[:end])
    lines = SAID.splitlines(keepends=True)
    for index, line in enumerate(lines):
        if not line.startswith(("INFO", "threads")):
            with pytest.raises(ParseError):
                parse("".join(lines[:index] + lines[index + 1 :]))
    for old, new in (("runs_us 5", "runs_us 4"), ("end 5", "end 6"), ("700.000", "nan"), ("1234.500", "-1")):
        with pytest.raises(ParseError):
            parse(SAID.replace(old, new))


def test_library_lies_beside_the_program(tmp_path: Path) -> None:
    program = tmp_path / "edgecls_runner"
    program.write_bytes(b"\x7fELF...edgecls runner 1\0...")
    with pytest.raises(DeviceMissing, match=r"libLiteRt\.so beside it.*build\.sh"):
        library_of(program)
    (tmp_path / "libLiteRt.so").touch()
    assert library_of(program) == tmp_path / "libLiteRt.so"
    (tmp_path / "benchmark_model").write_bytes(b"\x7fELF...")
    assert library_of(tmp_path / "benchmark_model") is None


def test_programs_of_linux_and_android_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGECLS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("EDGECLS_BENCHMARK_MODEL", raising=False)
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + (183).to_bytes(2, "little")
    linux, android, static = (tmp_path / name for name in ("linux", "android", "static"))
    linux.write_bytes(head + b"/lib/ld-linux-aarch64.so.1")
    android.write_bytes(head + b"/system/bin/linker64")
    static.write_bytes(head)
    for program in (linux, static):
        assert find_binary(program, ("aarch64-linux",)) == program
    for program in (android, static):
        assert find_binary(program, ("arm64-v8a", "armeabi")) == program
    with pytest.raises(DeviceMissing, match="64-bit ARM Android, and the phone runs aarch64-linux"):
        find_binary(android, ("aarch64-linux",))
    with pytest.raises(DeviceMissing, match="64-bit ARM Linux, and the phone runs arm64-v8a"):
        find_binary(linux, ("arm64-v8a",))
    assert find_binary(None, ("aarch64-linux",)) == SOURCE.with_suffix(".py")
    own = tmp_path / "edgecls/benchmark_model/aarch64-linux/edgecls_runner"
    own.parent.mkdir(parents=True)
    own.write_bytes(linux.read_bytes())
    assert find_binary(None, ("aarch64-linux",)) == own
