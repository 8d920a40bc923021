"""Measuring on a phone, from ``bench()`` down to ADB messages, and every way in which it can go wrong.

The phone is ``adbd.Adbd``; its ``benchmark_model`` is a shell script that prints what the samples show, so the figures
are invented. What is tested is the session: what is pushed and run, what is believed, and what is said.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from adbd import Adbd, AdbServer
from phone import BENCHMARK, furnish, tool, warm

from android_bench import (
    BenchError,
    BenchUsageError,
    DeviceLost,
    DeviceMissing,
    Interrupted,
    bench,
    exit_code,
)
from android_bench.adb.link import FOLDER
from android_bench.devices import attached as seen
from android_bench.devices.probe import State, big_mask
from android_bench.devices.survey import survey
from android_bench.measure.accuracy import outputs

REPO = Path(__file__).parents[1]
QUICK: dict[str, Any] = {"warmup": 2, "runs": 5, "rounds": 2, "spacing_s": 0.0, "repeats": 0, "cool_s": 0.0}


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: Path) -> None:
    """No adb server, no USB, no binary but the test's, whatever this computer has."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(free.getsockname()[1]))
    monkeypatch.setattr(seen, "from_usb", lambda usb: [])
    monkeypatch.setenv("EDGECLS_CONFIG", str(config))
    monkeypatch.delenv("EDGECLS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("android_bench.measure.phone.PhoneBackend.settle", lambda self: True)
    binary = tmp_path / "benchmark_model"
    binary.write_text(BENCHMARK)
    monkeypatch.setenv("EDGECLS_BENCHMARK_MODEL", str(binary))


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[Adbd]:
    furnish((daemon := Adbd(tmp_path / "phone")).phone.root)
    yield daemon.start()
    daemon.stop()


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    files = [tmp_path / "a.tflite", tmp_path / "b.tflite"]
    for file in files:
        file.write_bytes(b"\0\0\0\0TFL3" + file.name.encode() * 1000)
    return files


def behave(phone: Adbd, text: str) -> None:
    folder = phone.phone.path(FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "behaviour").write_text(text + "\n")


def measure(phone: Adbd, models: list[Path], threads: Any = (1, 4), **options: Any) -> dict[str, Any]:
    return bench(models, phone.where, threads, **{**QUICK, **options})


def test_figures_and_facts(phone: Adbd, models: list[Path]) -> None:
    document = measure(phone, models)
    json.dumps(document, allow_nan=False)
    device = document["device"]
    assert (device["name"], device["cpu"], device["profile"]) == ("Google Pixel 4", "Snapdragon 855", "sd855")
    assert device["os"] == "Android 13" and device["machine"] == "arm64-v8a" and device["cores"] == 8
    assert [c["mask"] for c in device["clusters"]] == ["0f", "70", "80"]
    assert phone.where not in json.dumps(document)  # nobody needs to know the address
    assert document["before"]["temperature_c"] == {"skin": 31.5, "battery": 31.5}
    assert document["before"]["battery_percent"] == 85 and document["before"]["battery"] == "charging"
    assert [(r["model"], r["threads"], r["status"]) for r in document["results"]] == [
        (m, t, "ok") for m in ("a.tflite", "b.tflite") for t in (1, 4)
    ]
    for r in document["results"]:
        assert r["median_ms"] == 8.0 / r["threads"] and r["n"] == 10 and r["p90_ms"] is None
        assert r["mean_ms"] == pytest.approx(8.0 / r["threads"] + 0.02) and r["ci95_ms"] is None
        assert r["min_ms"] == pytest.approx(8.0 / r["threads"] - 0.1) and r["std_ms"] == pytest.approx(0.05)
        assert r["init_ms"] == 14.5 and r["first_ms"] == pytest.approx(8.0 / r["threads"] + 0.9)
        assert (r["peak_mib"], r["peak_total_mib"]) == (15.5, 29.5)
        assert (
            r["mask"] == "f0" and r["runtime"] == "benchmark_model (tflite)" and r["delegates"] == ["XNNPACK"]
        )
        assert all(row["used"] and row["after"]["governors"] == ["schedutil"] for row in r["rounds"])
    assert exit_code(document) == 0


def test_rounds_take_turns_and_pushes_happen_once(phone: Adbd, models: list[Path]) -> None:
    measure(phone, models, [1, 4])
    ran = phone.phone.path(f"{FOLDER}/ran")
    order = [line.split()[1:] for line in ran.read_text().splitlines() if line.endswith(" 5")]
    assert order == [["1", "5"], ["4", "5"]] * 4

    def files() -> dict[Path, int]:
        return {
            p: p.stat().st_mtime_ns for p in ran.parent.rglob("[!.]*") if p.is_file() and "lock" not in str(p)
        }

    before = files()
    assert len([n for n in before if n.suffix == ".tflite"]) == 2
    measure(phone, models, [1, 4])
    assert files() | {ran: 0} == before | {ran: 0}


def test_litert_is_told_apart(phone: Adbd, models: list[Path]) -> None:
    behave(phone, "kind=litert")
    (result,) = measure(phone, models[:1], [1])["results"]
    assert result["status"] == "ok" and result["median_ms"] == 8.0
    assert result["runtime"] == "benchmark_model (litert)"


def test_unknown_flag_is_a_failure(phone: Adbd, models: list[Path]) -> None:
    behave(phone, 'unknown=" --use_xnnpack=true"; set -- --bogus "$@"')
    document = measure(phone, models, [1])
    assert {r["status"] for r in document["results"]} == {"failed"}
    assert "does not know" in document["results"][0]["why"]


def test_bad_model_fails_alone(phone: Adbd, models: list[Path]) -> None:
    models[0].write_bytes(b"\0\0\0\0TFL3BAD")
    document = measure(phone, models, [1])
    assert [r["status"] for r in document["results"]] == ["failed", "ok"]
    assert "Failed to load model" in document["results"][0]["why"] and exit_code(document) == 1


def test_taskset_that_fails_is_said(phone: Adbd, models: list[Path]) -> None:
    tool(phone.phone.root, "taskset", "echo 'taskset: Invalid argument' >&2; exit 1")
    (result,) = measure(phone, models[:1], [1])["results"]
    assert result["status"] == "ok" and result["mask"] is None
    assert "not pinned: taskset f0 failed (taskset: Invalid argument)" in result["why"]


@pytest.mark.parametrize(
    ("degrees", "thermal", "why"), [(45.0, 0, "45.0 C warm after 0 s"), (31.0, 2, "thermal status 2")]
)
def test_hot_phone_is_unsure(degrees: float, thermal: int, why: str, phone: Adbd, models: list[Path]) -> None:
    warm(phone.phone.root, degrees, thermal)
    (result,) = measure(phone, models[:1], [1])["results"]
    assert result["status"] == "unsure" and why in result["why"] and result["median_ms"] == 8.0


def test_hot_phone_is_waited_for(phone: Adbd, models: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("android_bench.measure.heat._COOLING_STEP_S", 0.1)
    warm(phone.phone.root, 45.0)
    events: list[str] = []

    def listen(event: dict[str, Any]) -> None:
        events.append(event["event"])
        if events.count("cool") == 3:
            warm(phone.phone.root, 38.0)

    (result,) = measure(phone, models[:1], [1], cool_s=20.0, on_event=listen)["results"]
    assert result["status"] == "ok" and events.count("cool") == 3


def test_capped_clock_is_unsure(phone: Adbd, models: list[Path]) -> None:
    cap = phone.phone.root / "sys/devices/system/cpu/cpu7/cpufreq/scaling_max_freq"
    cap.write_text("1900000\n")
    (result,) = measure(phone, models[:1], [1])["results"]
    assert result["status"] == "unsure" and "core 7 is capped at 1900 of 2841 MHz" in result["why"]


def test_drift_is_unsure(phone: Adbd, models: list[Path]) -> None:
    def slower(event: dict[str, Any]) -> None:
        if event["event"] == "round":
            behave(phone, "base=10000")

    (result,) = measure(phone, models[:1], [1], on_event=slower)["results"]
    assert result["status"] == "unsure" and "its median is 20% below the others'" in result["why"]


def test_named_chip_must_be_the_phones(
    phone: Adbd, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = AdbServer({"R58M": phone.phone}).start()
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.port))
    assert bench(models[:1], "sd855", [1], **QUICK)["results"][0]["status"] == "ok"
    with pytest.raises(DeviceMissing, match=r"is a Snapdragon 855 .*not a Snapdragon 865"):
        bench(models[:1], "sd865", [1], **QUICK)
    server.phones["SECOND"] = phone.phone
    with pytest.raises(BenchError, match=r"several attached phones could be meant: R58M .*, SECOND"):
        bench(models[:1], "sd855", [1], **QUICK)
    rows = {row["serial"]: row for row in survey()["devices"]}
    assert rows["R58M"]["fit"] and rows["R58M"]["soc"] == "Snapdragon 855"
    server.stop()


def test_busy_phone_is_unsure(phone: Adbd, models: list[Path]) -> None:
    """A second of `sleep` as the program, in which the whole phone used eight core-seconds."""
    tool(
        phone.phone.root,
        "head",
        "n=$(cat n 2>/dev/null || echo 0); n=$((n + 800)); echo $n > n; echo cpu $n 0 0 0 0 0 0",
    )
    behave(phone, 'case "$*" in *num_runs=5*) sleep 1;; esac')
    (result,) = measure(phone, models[:1], [1])["results"]
    assert result["status"] == "unsure" and "other programs used" in result["why"]


ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00"


@pytest.mark.parametrize(
    ("content", "kind", "says"),
    [
        (None, DeviceMissing, "no such program"),
        (ELF + (62).to_bytes(2, "little"), DeviceMissing, "for 64-bit x86, and the phone runs arm64-v8a"),
        (b"text", DeviceMissing, "not a program for Android"),
        (ELF + (183).to_bytes(2, "little"), DeviceMissing, "the phone does not execute"),
        (b"#!/no/such/interpreter\n", DeviceMissing, "the phone has no longer|does not execute"),
    ],
)
def test_wrong_binary(
    content: bytes | None, kind: type[BenchError], says: str, phone: Adbd, models: list[Path], tmp_path: Path
) -> None:
    binary = tmp_path / "program"
    if content:
        binary.write_bytes(content)
    with pytest.raises(kind, match=says) as error:
        measure(phone, models, binary=binary)
    assert "\n" not in str(error.value)


def test_no_binary(phone: Adbd, models: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EDGECLS_BENCHMARK_MODEL")
    with pytest.raises(DeviceMissing, match=r"no benchmark_model for arm64-v8a.*--binary"):
        measure(phone, models)
    cached = tmp_path / "cache/edgecls/benchmark_model/arm64-v8a/benchmark_model"
    cached.parent.mkdir(parents=True)
    cached.write_text(BENCHMARK)
    assert measure(phone, models[:1], [1])["results"][0]["status"] == "ok"


def test_full_phone(phone: Adbd, models: list[Path]) -> None:
    tool(phone.phone.root, "df", "echo '/dev/x 9 9 1 99% /data'")
    with pytest.raises(DeviceMissing, match="no space left"):
        measure(phone, models)


def test_phone_pulled_out_keeps_results_so_far(phone: Adbd, models: list[Path], monkeypatch: Any) -> None:
    monkeypatch.setattr("android_bench.adb.link.PATIENCE_S", 1.0)

    def pull_out(event: dict[str, Any]) -> None:
        if event["event"] == "round" and event["model"] == "b.tflite":
            phone.gone_s, phone.cut_after = 1e9, 20

    with pytest.raises(DeviceLost, match="the phone is gone") as stop:
        measure(phone, models, [1], on_event=pull_out)
    assert stop.value.exit_code == 3 and not stop.value.document["complete"]
    assert [(r["status"], r["n"]) for r in stop.value.document["results"]] == [("unsure", 5), ("unsure", 5)]


def test_short_breaks_change_nothing(phone: Adbd, models: list[Path]) -> None:
    """The link breaks 30 times in a session, at any byte; every figure is right and nothing is left running."""
    rng = random.Random(0)
    phone.places = iter([rng.randrange(4000, 14000) for _ in range(29)])

    def disturb(event: dict[str, Any]) -> None:
        if event["event"] == "load" and not phone.cuts and phone.cut_after is None:
            phone.cut_after = 100

    document = measure(phone, models, [1, 2, 4], rounds=3, on_event=disturb)
    assert phone.cuts == 30
    for r in document["results"]:
        assert (r["status"], r["median_ms"], r["n"]) == ("ok", 8.0 / r["threads"], 15)
    assert phone.phone.left() == []


def test_hanging_program_is_ended(phone: Adbd, models: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("android_bench.measure.phone._LOAD_TIMEOUT_S", 1.0)
    behave(phone, 'case "$*" in *num_threads=4*) while :; do :; done;; esac')
    results = measure(phone, models[:1], [4, 1])["results"]
    assert [r["status"] for r in results] == ["failed", "ok"] and "did not end within" in results[0]["why"]
    assert phone.phone.left() == []


def test_ctrl_c_ends_the_program_on_the_phone(phone: Adbd, models: list[Path]) -> None:
    """In the middle of a measurement: what runs there is ended, what was measured is kept."""
    behave(phone, 'case "$*" in *num_threads=4*num_runs=5*) while :; do sleep 0.1; done;; esac')

    def interrupt() -> None:
        end = time.monotonic() + 20
        while time.monotonic() < end and not any(
            "--num_threads=4 --warmup_runs=2" in c for c in phone.phone.commands
        ):
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    begin = time.monotonic()
    with pytest.raises(Interrupted) as stop:
        measure(phone, models[:1], [1, 4], rounds=1)
    assert time.monotonic() - begin < 15 and not isinstance(stop.value, DeviceLost)
    done, cut = stop.value.document["results"]
    assert (done["status"], done["median_ms"], cut["status"]) == ("ok", 8.0, "failed")
    assert "interrupted" in cut["why"] and not stop.value.document["complete"]
    time.sleep(0.3)  # its last `sleep`
    assert phone.phone.left() == []


def test_outputs_need_our_own_program(phone: Adbd, models: list[Path]) -> None:
    with pytest.raises(BenchUsageError, match=r"tells no outputs, only times.*build\.sh"):
        outputs([(models[0], b"", 0)], phone.where)
    with pytest.raises(BenchUsageError, match="outputs of this computer"):
        outputs([(models[0], b"", 0)], "host")


def test_command_line(phone: Adbd, models: list[Path], tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "android_bench",
        str(models[0]),
        "--device",
        phone.where,
        "--threads",
        "1,2",
    ]
    options = [
        "--rounds",
        "1",
        "--runs",
        "5",
        "--repeats",
        "0",
        "--binary",
        str(tmp_path / "benchmark_model"),
    ]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, cwd=REPO)
    assert done.returncode == 0, done.stderr
    assert (
        "Google Pixel 4: Snapdragon 855" in done.stdout and "accept the USB debugging prompt" in done.stderr
    )


def test_survey_of_a_phone_that_is_not_fit(phone: Adbd) -> None:
    warm(phone.phone.root, 44.0, 1)
    (row,) = survey([phone.where])["devices"]
    assert not row["fit"] and row["cores"] == 8 and row["temperature_c"] == 44.0 and row["abi"] == "arm64-v8a"
    assert any("44.0 C warm" in why for why in row["why"]) and any("throttles" in why for why in row["why"])


@pytest.mark.parametrize(
    ("clocks", "threads", "mask"),
    [
        ([1, 1, 1, 1, 2, 2, 2, 3], 1, 0xF0),
        ([1, 1, 1, 1, 2, 2, 2, 3], 8, 0xFF),
        ([1] * 6 + [2] * 2, 2, 0xC0),
        ([1] * 6 + [2] * 2, 4, 0xFF),
        ([1] * 4, 1, 0xF),
        ([], 1, None),
    ],
)
def test_big_cores(clocks: list[int], threads: int, mask: int | None) -> None:
    assert big_mask(State(max_khz=dict(enumerate(clocks))).clusters(), threads) == mask
