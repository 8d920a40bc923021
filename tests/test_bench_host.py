"""Measuring on this computer: real models through real workers, and the session over a played backend."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from android_bench import BenchError, BenchUsageError, bench, exit_code
from android_bench.measure.host import HostBackend, HostRunner
from android_bench.measure.protocol import Protocol
from android_bench.models import find_models, parse_threads
from android_bench.output.documents import WRITERS, atomic, read_json, to_csv, to_json, to_text, write_json

REPO = Path(__file__).parents[1]
QUICK = {"warmup": 2, "warmup_s": 0.0, "runs": 12, "run_s": 0.0, "rounds": 2, "spacing_s": 0.0, "repeats": 0}


@pytest.fixture(scope="session")
def document(tiny: dict[str, Path]) -> dict[str, Any]:
    """One real measurement of a good model in two precisions, a torn and a NaN one, with 1 and 2 threads."""
    events: list[dict[str, Any]] = []
    files = [tiny[name] for name in ("fp32", "torn", "int8", "nan")]
    result = bench(files, "host", [1, 2], on_event=events.append, **QUICK)
    return {**result, "events": events}


def test_figures_are_those_of_the_runs(document: dict[str, Any], tiny: dict[str, Path]) -> None:
    assert document["schema"] == "android_bench/2" and document["complete"]
    good = [r for r in document["results"] if r["model"] in ("fp32.tflite", "int8.tflite")]
    assert [(r["model"], r["threads"]) for r in good] == [
        (model, threads) for model in ("fp32.tflite", "int8.tflite") for threads in (1, 2)
    ]
    for r in good:
        assert r["status"] in ("ok", "unsure") and (r["status"] == "ok" or r["why"])
        used = [row for row in r["rounds"] if row["used"]]
        runs = np.concatenate([row["samples_ms"] for row in used])
        assert r["n"] == len(runs) == sum(row["n"] for row in used) and all(row["n"] == 12 for row in used)
        assert r["median_ms"] == pytest.approx(np.median(runs), abs=2e-5)
        if sum(round["used"] for round in r["rounds"]) > 1:
            assert r["ci95_ms"][0] <= r["median_ms"] <= r["ci95_ms"][1]
        else:  # on a busy computer
            assert r["ci95_ms"] is None and "one round has no interval" in r["why"]
        assert 0 < r["min_ms"] <= r["median_ms"] <= r["p90_ms"] <= r["p99_ms"] <= r["max_ms"]
        assert r["init_ms"] > 0 and r["first_ms"] > 0
        assert 0 < r["peak_mib"] < r["peak_total_mib"]
        assert r["bytes"] == tiny[r["model"].split(".")[0]].stat().st_size and len(r["sha256"]) == 64
        assert r["partitions"] == 1


def test_broken_models_fail_alone(document: dict[str, Any]) -> None:
    bad = {r["model"]: r for r in document["results"] if r["status"] == "failed"}
    assert set(bad) == {"torn.tflite", "nan.tflite"}
    assert "not finite" in bad["nan.tflite"]["why"]
    for r in bad.values():
        assert r["why"] and "\n" not in r["why"] and r["median_ms"] is None and r["n"] == 0
    assert exit_code(document) == 1


def test_rounds_take_turns(document: dict[str, Any]) -> None:
    rounds = [e for e in document["events"] if e["event"] == "round" and not e["repeat"]]
    once = [("fp32.tflite", 1), ("fp32.tflite", 2), ("int8.tflite", 1), ("int8.tflite", 2)]
    assert [(e["model"], e["threads"]) for e in rounds] == once * 2


def test_json_and_csv(document: dict[str, Any], tmp_path: Path) -> None:
    clean = {key: value for key, value in document.items() if key != "events"}
    write_json(clean, tmp_path / "bench.json")
    assert read_json(tmp_path / "bench.json") == clean
    assert max(map(len, (tmp_path / "bench.json").read_text().splitlines())) < 20_000
    rows = list(csv.DictReader(io.StringIO(to_csv(clean))))
    assert [row["status"] for row in rows] == [r["status"] for r in clean["results"]]
    assert float(rows[0]["median_ms"]) == clean["results"][0]["median_ms"] and rows[2]["median_ms"] == ""


def test_first_schema_is_read(document: dict[str, Any], tmp_path: Path) -> None:
    """It called MiB "MB", and gave a single round an interval that claims too much."""
    now = {key: value for key, value in document.items() if key != "events"}
    old = json.loads(to_json(now).replace("_mib", "_mb").replace("android_bench/2", "android_bench/1"))
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert read_json(tmp_path / "old.json") == now
    result = next(r for r in old["results"] if r["n"])
    result["rounds"] = [r for r in result["rounds"] if r["used"]][:1]
    result["ci95_ms"] = [result["median_ms"]] * 2
    (tmp_path / "old.json").write_text(json.dumps(old))
    read = next(r for r in read_json(tmp_path / "old.json")["results"] if r["n"])
    assert read["ci95_ms"] is None


@pytest.mark.parametrize(
    ("cpuinfo", "vnni"),
    [
        ("processor\t: 0\nflags\t\t: fpu sse2 avx2 fma\n", False),
        ("flags\t\t: fpu sse2 avx512f avx512_vnni\n", True),
        ("flags\t\t: fpu sse2 avx2 avx_vnni\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n", None),
        ("", None),
    ],
)
def test_int8_without_vnni_is_said(
    cpuinfo: str, vnni: bool | None, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from android_bench.output.report import print_table

    monkeypatch.setattr(
        "android_bench.measure.host._read", lambda path: cpuinfo if path.name == "cpuinfo" else None
    )
    device = HostBackend().describe()
    assert device["vnni"] is vnni
    text = io.StringIO()
    print_table({**document, "device": device}, text)
    assert (
        ("int8 is not faster than float here" in text.getvalue()) == bool(device["notes"]) == (vnni is False)
    )


def test_the_manuals_layout(document: dict[str, Any], tmp_path: Path) -> None:
    """Paddle-Lite's result_armv8.txt, with its columns where they were and with a unit."""
    WRITERS[".txt"](document, tmp_path / "result.txt")
    title, *lines = (tmp_path / "result.txt").read_text().splitlines()
    assert title.endswith("latency in ms") and lines[0] == "Threads=1 Warmup=2 Repeats=12"
    assert (
        lines[5:7] == ["", "Threads=2 Warmup=2 Repeats=12"]
        and "torn   " in lines[2]
        and "failed: " in lines[2]
    )
    theirs = "MobileNetV1                           min = 30.89100    max = 30.73600    average = 30.79750"
    r = next(r for r in document["results"] if r["model"] == "fp32.tflite")
    low, high, mean = map(float, re.findall(r"= (\d+\.\d{5}) ", lines[1]))
    assert (low, high, mean) == pytest.approx((r["min_ms"], r["max_ms"], r["mean_ms"]), abs=1e-5)
    assert lines[1].index("min") == theirs.index("min") and f"runs = {r['n']}" in lines[1]
    wide = {**r, "model": "MobileNetV1.tflite", "min_ms": 30.891, "max_ms": 30.736, "mean_ms": 30.7975}
    assert to_text({**document, "results": [wide]}).splitlines()[2].startswith(theirs)


@pytest.mark.parametrize("width", [80, 100, 200])
def test_table_fits_the_terminal(
    width: int, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from android_bench.output.report import print_table

    monkeypatch.setenv("COLUMNS", str(width))
    rows = [{**r, "model": "MobileNetV3_large_x1_0_int8.tflite"} for r in document["results"]]
    text = io.StringIO()
    print_table({**document, "results": rows}, text)
    table, _, rest = text.getvalue().partition("ms; 2 rounds")
    assert max(map(len, table.splitlines())) <= width and "…" not in table
    assert all(name in table for name in ("threads", "median", "95 % interval", "status"))
    assert ("first" in table) == (width == 200) == ("left out because" not in rest)


def test_table_names_every_result(document: dict[str, Any]) -> None:
    from android_bench.output.report import print_table

    text = io.StringIO()
    print_table(document, text)
    for r in document["results"]:
        assert (
            r["model"] in text.getvalue() and r["status"] in text.getvalue() and r["why"] in text.getvalue()
        )


def run(*arguments: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "android_bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=REPO, **kwargs)


def test_command_line_alone_without_tensorflow(tiny: dict[str, Path], tmp_path: Path) -> None:
    """Decoys of TensorFlow, Keras and edgecls stand first on the path of the command and of its workers."""
    for name in ("tensorflow", "keras", "edgecls"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write({name!r})\n")
    path = os.pathsep.join([str(tmp_path), str(REPO)])
    options = ["--threads", "1", "--rounds", "1", "--repeats", "0", "--json", str(tmp_path / "b.json")]
    done = run(str(tiny["int8"]), *options, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    assert "int8.tflite" in done.stdout
    assert read_json(tmp_path / "b.json")["results"][0]["status"] in ("ok", "unsure")
    assert not (tmp_path / "imported").exists()


def test_torn_model_exits_1_and_keeps_the_rest(tiny: dict[str, Path]) -> None:
    done = run(str(tiny["torn"]), str(tiny["fp32"]), "--rounds", "1", "--repeats", "0", "--json", "-")
    assert done.returncode == 1
    assert [r["status"] == "failed" for r in json.loads(done.stdout)["results"]] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["{fp32}", "--threads", "0,x"], 2, "threads must be numbers from 1 to 64"),
        (["{fp32}", "--runs", "0"], 2, "--runs"),
        (["{fp32}", "--spacing", "nan"], 2, "nan is not a finite number"),
        (["{fp32}", "--spacing", "inf"], 2, "inf is not a finite number"),
        (["nowhere.tflite"], 2, "no such model file"),
        (["{repo}/pyproject.toml"], 2, "not a TFLite file"),
        (["{repo}/tests/data/bench"], 2, "no .tflite file"),
        (["{fp32}", "--device", "sd855"], 3, "--device host"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], code: int, says: str, tiny: dict[str, Path]) -> None:
    done = run(
        *(a.format(fp32=tiny["fp32"], repo=REPO) for a in arguments),
        env={**os.environ, "ANDROID_ADB_SERVER_PORT": "1"},
    )
    assert done.returncode == code
    assert says in done.stderr and len(done.stderr.splitlines()) == 1 and done.stdout == ""


def test_ctrl_c_keeps_the_figures_so_far(tiny: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "b.json"
    command = [
        sys.executable,
        "-m",
        "android_bench",
        str(tiny["fp32"]),
        "--rounds",
        "500",
        "--json",
        str(out),
    ]
    process = subprocess.Popen(command, cwd=REPO, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "round 1" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said
    result = read_json(out)["results"][0]
    assert result["status"] == "unsure" and "interrupted" in result["why"] and result["n"] > 0


def test_dead_worker_is_a_failure_with_a_reason(tiny: dict[str, Path]) -> None:
    runner = HostRunner(find_models([tiny["fp32"]])[0], 1, seed=0)
    try:
        runner.load()
        os.kill(runner._process.pid, signal.SIGKILL)
        with pytest.raises(BenchError, match=r"died \(signal 9\)"):
            runner.measure(Protocol())
    finally:
        runner.close()


def test_memory_of_the_parent_is_not_counted(tiny: dict[str, Path]) -> None:
    """ru_maxrss is handed down through fork and exec; the figure reported is not."""
    ballast = np.ones(600 * 2**20, np.uint8)
    runner = HostRunner(find_models([tiny["fp32"]])[0], 1, seed=0)
    try:
        runner.load()
        peak = runner.measure(Protocol(warmup=0, warmup_s=0, runs=1, run_s=0)).peak_total_bytes
    finally:
        runner.close()
    assert peak is not None and 0 < peak < ballast.nbytes


@pytest.mark.parametrize("text", ["", "0", "0,x", "1,,2", "-1", "1.5", "65", "²", [], [True], "1 2"])
def test_threads_refused(text: Any) -> None:
    with pytest.raises(BenchUsageError):
        parse_threads(text)


def test_threads_accepted() -> None:
    assert parse_threads("1, 2,4") == [1, 2, 4] == parse_threads([1, 2, 4, 2])
    assert parse_threads(2) == [2]


def test_protocols() -> None:
    mlperf = Protocol("mlperf")
    assert (mlperf.runs, mlperf.run_s) == (1024, 60.0)
    assert (Protocol().warmup, Protocol().runs) == (10, 30)
    with pytest.raises(BenchUsageError, match="no protocol"):
        Protocol("fast")


def test_atomic_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic(tmp_path / "x.json") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BenchUsageError, match="cannot write"), atomic(tmp_path / "no" / "x.json"):
        pass


def test_unmeasurable_number_is_refused_in_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_json({"x": float("nan")}, tmp_path / "x.json")
    assert list(tmp_path.iterdir()) == []
