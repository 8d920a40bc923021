"""Result files of LiteRT's benchmark tools, and our program in Python for boards that have LiteRT and nothing else."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adbd import Adbd
from phone import tool

from android_bench import bench
from android_bench.adb.link import FOLDER
from android_bench.devices.binary import find_binary
from android_bench.measure.worker import runtime
from android_bench.output.parse import ParseError, parse
from android_bench.output.result_files import read_result, read_result_file

# They come with TensorFlow.
descriptor_pb2, descriptor_pool, message_factory = (
    pytest.importorskip(f"google.protobuf.{name}")
    for name in ("descriptor_pb2", "descriptor_pool", "message_factory")
)

PROGRAM = Path(__file__).parents[1] / "android_bench/runner/edgecls_runner.py"
LATENCY = ["avg_ms", "min_ms", "max_ms", "stddev_ms", "median_ms", "p5_ms", "p95_ms", "init_ms", "first_inference_ms",
           "average_warm_up_ms"]  # fmt: skip
FIGURES = [5.28, 5.09, 5.48, 0.066, 5.285, 5.174, 5.385, 22.031, 6.212, 5.336]


def result_class() -> Any:
    """``BenchmarkResult`` as the .proto file has it, from Google's own protobuf."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="r.proto", package="r", syntax="proto2")
    members = {
        "LatencyMetrics": [(name, kinds.TYPE_FLOAT) for name in LATENCY],
        "MemoryMetrics": [
            ("init_footprint_kb", kinds.TYPE_INT64),
            ("overall_footprint_kb", kinds.TYPE_INT64),
            ("peak_mem_mb", kinds.TYPE_FLOAT),
        ],
        "MiscMetrics": [
            ("model_size_mb", kinds.TYPE_FLOAT),
            ("num_runs", kinds.TYPE_INT32),
            ("num_warmup_runs", kinds.TYPE_INT32),
            ("model_throughput_in_mb_per_sec", kinds.TYPE_FLOAT),
        ],
        "BenchmarkResult": [
            ("name", kinds.TYPE_STRING),
            ("latency_metrics", ".r.LatencyMetrics"),
            ("memory_metrics", ".r.MemoryMetrics"),
            ("misc_metrics", ".r.MiscMetrics"),
        ],
    }
    for message, fields in members.items():
        made = file.message_type.add(name=message)
        for number, (name, kind) in enumerate(fields, 1):
            about: dict[str, Any] = {"type": kind}
            if isinstance(kind, str):
                about = {"type": kinds.TYPE_MESSAGE, "type_name": kind}
            made.field.add(name=name, number=number, label=kinds.LABEL_OPTIONAL, **about)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("r.BenchmarkResult"))


def result(**changed: float) -> bytes:
    made = result_class()(name="a name")
    for name, value in {**dict(zip(LATENCY, FIGURES, strict=True)), **changed}.items():
        if name in LATENCY:
            setattr(made.latency_metrics, name, value)
    made.memory_metrics.init_footprint_kb, made.memory_metrics.overall_footprint_kb = 12708, 17428
    made.misc_metrics.model_size_mb = 10.1723
    made.misc_metrics.num_runs, made.misc_metrics.num_warmup_runs = int(changed.get("runs", 189)), 93
    data: bytes = made.SerializeToString()
    return data


def test_the_protobuf_says_what_the_output_says(tmp_path: Path) -> None:
    (tmp_path / "result.pb").write_bytes(result())
    said = read_result_file(tmp_path / "result.pb")
    text = parse(next((Path(__file__).parent / "data/bench").glob("05_*.txt")).read_text())
    assert (said.kind, said.runs.count, said.warmup.count) == (text.kind, text.runs.count, text.warmup.count)
    for name in ("min_ms", "max_ms", "mean_ms", "std_ms", "p5_ms", "median_ms", "p95_ms", "first_ms"):
        assert (
            getattr(said.runs, name) == pytest.approx(getattr(text.runs, name), rel=0.01)
            or name == "first_ms"
        )
    assert (said.init_ms, said.first_ms) == pytest.approx((text.init_ms, text.first_ms), rel=1e-5)
    assert said.init_delta_mib == pytest.approx(12.41, abs=0.01) and said.peak_mib is None


def test_a_protobuf_that_is_cut_or_false_is_refused() -> None:
    data = result()
    for end in range(len(data)):
        with pytest.raises(ParseError):
            read_result(data[:end])
    for change in (
        {"median_ms": 9.0},
        {"min_ms": -1.0},
        {"avg_ms": math.nan},
        {"runs": 0},
        {"stddev_ms": math.inf},
    ):
        with pytest.raises(ParseError, match="cannot be"):
            read_result(result(**change))
    with pytest.raises(ParseError, match="no count"):
        read_result(result(runs=189).replace(b"\x10\xbd\x01", b"\x28\xbd\x01"))


def test_the_twin_in_python(tiny: dict[str, Path], tmp_path: Path) -> None:
    """The real one: what it prints, what it writes."""
    file = tmp_path / "result.json"
    module = "ai_edge_litert.tools.benchmark_litert_model"
    flags = [f"--model={tiny['fp32']}", "--num_runs=30", f"--result_json={file}"]
    done = subprocess.run([sys.executable, "-m", module, *flags], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-500:]
    latency = json.loads(file.read_text())["latency"]
    if latency["min_ms"] == 0:  # a network of no time at all, in hundredths of a millisecond
        with pytest.raises(ParseError, match="min_ms=0 is impossible"):
            read_result_file(file)
        latency = {name: ms if name.startswith("num") else ms + 1 for name, ms in latency.items()}
        latency["std_ms"] -= 1
        file.write_text(json.dumps({"latency": latency}))
    else:
        assert parse(done.stdout).runs == read_result_file(file).runs
    said = read_result_file(file)
    assert (said.kind, said.runs.count, said.runs.median_ms) == ("python", 30, latency["median_ms"])
    for broken in (b"{", b"{}", b'{"latency": 7}', b'{"latency": {}}', b"[" * 10**5):
        with pytest.raises(ParseError):
            read_result(broken)


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, PROGRAM, *flags], capture_output=True, text=True, timeout=120)


def test_our_program_in_python_measures(tiny: dict[str, Path]) -> None:
    flags = ["--warmup_runs=3", "--warmup_min_secs=0", "--num_runs=7", "--min_secs=0", "--num_threads=2"]
    done = run(f"--graph={tiny['int8']}", *flags)
    said = parse(done.stderr + done.stdout, done.returncode)
    assert (said.kind, said.warmup.count, len(said.samples_ms)) == ("edgecls", 3, 7)
    assert said.init_ms > 0 and said.peak_mib and said.peak_mib > 1 and said.delegates == ("XNNPACK",)
    for wrong, why in (("nowhere.tflite", "does not load"), (str(PROGRAM), "does not load")):
        done = run(f"--graph={wrong}")
        with pytest.raises(ParseError, match=why):
            parse(done.stderr + done.stdout, done.returncode)
    assert run("--no_such_flag=1").returncode == 2


def test_its_outputs_are_those_of_the_interpreter(tiny: dict[str, Path], tmp_path: Path) -> None:
    interpreter = runtime()[0](model_path=str(tiny["int8"]))
    interpreter.allocate_tensors()
    detail = interpreter.get_input_details()[0]
    images = (
        np.random.default_rng(0).integers(0, 256, (3, *detail["shape"][1:]), np.uint8).astype(detail["dtype"])
    )
    wanted = b""
    for image in images:
        interpreter.set_tensor(detail["index"], image[None])
        interpreter.invoke()
        wanted += interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).tobytes()
    (tmp_path / "in").write_bytes(images.tobytes())
    done = run(f"--graph={tiny['int8']}", f"--input={tmp_path}/in", f"--output={tmp_path}/out")
    assert (tmp_path / "out").read_bytes() == wanted
    assert re.search(rf"^outputs {len(wanted)} bytes\nend 3$", done.stdout, re.MULTILINE)


@pytest.mark.usefixtures("alone")
def test_a_phone_whose_summary_goes_to_the_log(pixel: Adbd) -> None:
    tools = pixel.phone.path(FOLDER)
    tools.mkdir(parents=True, exist_ok=True)
    (tools / "behaviour").write_text("kind=litert\n")
    (tools / "log").touch()
    plan: dict[str, Any] = {"warmup": 2, "runs": 5, "rounds": 2, "spacing_s": 0.0, "repeats": 0}
    (row,) = bench(["a.tflite"], pixel.where, [1], **plan)["results"]
    assert row["status"] == "failed" and "ends before its summary" in row["why"]
    (tools / "answer").write_bytes(result())
    document = bench(["a.tflite"], pixel.where, [1], **plan)
    (row,) = document["results"]
    assert row["status"] == "ok" and document["device"]["program"] == "litert"
    assert (row["median_ms"], row["n"], row["delegates"]) == (5.285, 2 * 189, ["XNNPACK"])


@pytest.mark.usefixtures("alone")
def test_a_board_with_litert_and_nothing_else(
    pixel: Adbd, tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGECLS_BENCHMARK_MODEL")
    assert find_binary(None, ("aarch64-linux",)) == find_binary(None, ("armv7l-linux",)) == PROGRAM
    tool(pixel.phone.root, "python3", f'exec {sys.executable} "$@"')
    plan: dict[str, Any] = {
        "warmup": 1,
        "runs": 20,
        "run_s": 0.0,
        "rounds": 2,
        "spacing_s": 0.0,
        "repeats": 0,
    }
    (row,) = bench([tiny["int8"]], pixel.where, [1], binary=PROGRAM, **plan)["results"]
    assert row["status"] != "failed", row["why"]
    assert row["delegates"] == ["XNNPACK"] and row["n"] % 20 == 0 and row["p90_ms"] > 0 and row["ci95_ms"]
    tool(pixel.phone.root, "python3", f'exec {sys.executable} -S "$@"')  # without any package
    (row,) = bench([tiny["int8"]], pixel.where, [1], binary=PROGRAM, **plan)["results"]
    assert row["status"] == "failed" and "pip install ai-edge-litert" in row["why"]
