"""Many models: what is kept, what is measured again, and the zoo's networks as files."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from test_bench_host import Played, quiet

from android_bench import BenchError, DeviceLost, DeviceMissing, Interrupted, bench, exit_code
from android_bench.batch import Kept, run_batch
from android_bench.models import ModelFile
from android_bench.protocol import Protocol

QUICK = {"warmup": 1, "warmup_s": 0.0, "runs": 5, "run_s": 0.0, "rounds": 1, "repeats": 0}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Device(Played):
    """Plays a quiet round for every model; what it measured is in ``ran``."""

    def __init__(self, **troubles: BaseException) -> None:
        super().__init__({})
        self.troubles, self.ran = troubles, []

    def open(self, model: ModelFile, threads: int, seed: int) -> Any:
        self.ran.append((model.name, threads))
        self.script = {model.name: [self.troubles.get(model.name, quiet(5.0))] * 3}
        return super().open(model, threads, seed)


def files(*names: str, size: int = 1) -> list[ModelFile]:
    return [ModelFile(Path(name), name, name * 64, size) for name in names]


def run(device: Device, models: list[ModelFile], threads: tuple[int, ...] = (1, 2), **options: Any) -> Any:
    protocol = Protocol(rounds=1, repeats=0, **options.pop("protocol", {}))
    return run_batch(device, models, threads, protocol, Kept(device.describe(), protocol, threads), **options)


def test_a_killed_batch_goes_on_where_it_was() -> None:
    names = "abcdefghij"
    with pytest.raises(Interrupted) as stop:
        run(device := Device(g=KeyboardInterrupt()), files(*names))
    done = stop.value.document
    assert not done["complete"] and {r["model"] for r in done["results"] if r["status"] == "ok"} == set(
        "abcd"
    ) | set("ef")
    assert {r["model"] for r in done["results"] if r["status"] == "failed"} == {"h"} | {"g"}
    events: list[dict[str, Any]] = []
    document = run(device := Device(), files(*names), on_event=events.append)
    assert {name for name, _ in device.ran} == set("efghij")  # the group that was cut is measured again
    assert [e for e in events if e["event"] == "plan"] == [
        {"event": "plan", "cases": 12, "rounds": 1, "kept": 4}
    ]
    assert [(r["model"], r["threads"], r["status"]) for r in document["results"]] == [
        (name, threads, "ok") for name in names for threads in (1, 2)
    ]
    assert document["complete"] and all(r["measured"] and r["rounds"] for r in document["results"])
    run(device := Device(), files(*names))
    assert device.ran == []
    run(device, files("a"), fresh=True)
    assert device.ran == [("a", 1), ("a", 2)]


def test_what_counts_as_the_same_measurement() -> None:
    run(device := Device(), files("a"))
    device.ran.clear()
    run(device, files("a"), threads=(1,))
    run(device, files("a"), protocol={"runs": 31})
    run(device, [ModelFile(Path("a"), "a", "other" * 12, 1)])
    assert len(device.ran) == 1 + 2 + 2
    device.ran.clear()
    (result, _) = run(device, [ModelFile(Path("b"), "renamed", "a" * 64, 1)])["results"]
    assert device.ran == [] and result["model"] == "renamed"
    other = Kept({"kind": "played", "name": "another phone"}, Protocol(rounds=1, repeats=0), (1, 2))
    assert other.get(files("a")[0]) is None


def test_failures_are_shown_and_tried_again() -> None:
    document = run(device := Device(b=BenchError("no such operator")), files("a", "b", "c"))
    assert [r["status"] for r in document["results"]] == ["ok", "ok", "failed", "failed", "ok", "ok"]
    assert document["complete"] and document["results"][2]["why"] == "no such operator"
    run(device := Device(), files("a", "b", "c"))
    assert {name for name, _ in device.ran} == {"b"}


def test_a_lost_device_keeps_what_was_measured() -> None:
    with pytest.raises(DeviceLost, match="the phone is gone") as stop:
        run(Device(e=DeviceMissing("the phone is gone")), files(*"abcdef"))
    assert stop.value.exit_code == 3
    assert [r["model"] for r in stop.value.document["results"] if r["status"] == "ok"] == [*"aabbccdd"]
    with pytest.raises(DeviceMissing) as alone:
        run(Device(x=DeviceMissing("no runtime")), files("x"))
    assert not isinstance(alone.value, DeviceLost)


def test_big_models_are_not_loaded_together() -> None:
    most = 0

    class Watched(Device):
        def open(self, model: ModelFile, threads: int, seed: int) -> Any:
            nonlocal most
            most = max(most, self.open_now + 1)
            return super().open(model, threads, seed)

    run(Watched(), files(*"abcd", size=200 * 2**20), threads=(1,))
    assert most == 3


def test_torn_figures_are_measured_again(cache: Path) -> None:
    run(device := Device(), files("a"))
    (kept,) = (cache / "measured").iterdir()
    kept.write_text(kept.read_text()[:100])
    run(device, files("a"))
    assert len(device.ran) == 4


def test_a_folder_on_this_computer(tiny: dict[str, Path], cache: Path) -> None:
    folder = tiny["fp32"].parent
    first = bench([folder], "host", [1], resume=True, **QUICK)
    second = bench([folder], "host", [1], resume=True, **QUICK)
    status = {r["model"]: r["status"] for r in first["results"]}
    assert status["torn.tflite"] == status["nan.tflite"] == "failed"
    assert status["fp32.tflite"] != "failed" and len(list((cache / "measured").iterdir())) == 2
    assert [r for r in first["results"] if r["n"]] == [r for r in second["results"] if r["n"]]


def test_kill_9_loses_one_group(tiny: dict[str, Path], tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for index in range(3):
        (folder / f"m{index}.tflite").write_bytes(tiny["fp32"].read_bytes() + bytes([index]))
    options = {**QUICK, "resume": True}
    code = f"from android_bench import bench; bench([{str(folder)!r}], 'host', [1, 2, 3, 4], **{options!r})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    end = time.monotonic() + 60
    while not (cache / "measured").is_dir() or not any((cache / "measured").glob("[!.]*")):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    events: list[dict[str, Any]] = []
    document = bench([folder], "host", [1, 2, 3, 4], on_event=events.append, **options)
    plan = next(e for e in events if e["event"] == "plan")
    assert 1 <= plan["kept"] < 3 and plan["cases"] == 4 * (3 - plan["kept"])
    assert document["complete"] and len(document["results"]) == 12 and not exit_code(document)
