"""Many models: what is kept, what is measured again, and the zoo's networks as files."""

import contextlib
import importlib.metadata
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from adbd import Adbd
from phone import BENCHMARK, furnish, tool
from test_bench_host import Played, quiet

from android_bench import BenchError, DeviceLost, DeviceMissing, Interrupted, bench, exit_code
from android_bench.adb.link import open_link
from android_bench.devices.naming import resolve
from android_bench.events import remark
from android_bench.measure.batch import Kept, run_batch
from android_bench.measure.host import HostBackend
from android_bench.measure.phone import PhoneBackend
from android_bench.measure.protocol import Protocol, Round
from android_bench.models import ModelFile

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


def test_unsure_figures_are_measured_again() -> None:
    doubtful = Round([5.0] * 5, foreign_cores=1.5, wait=0.0)

    class Busy(Device):
        def open(self, model: ModelFile, threads: int, seed: int) -> Any:
            runner = super().open(model, threads, seed)
            if (model.name, threads) == ("b", 2):
                runner.measure = lambda protocol: doubtful
            return runner

    document = run(Busy(), files("a", "b"))
    assert [r["status"] for r in document["results"]] == ["ok", "ok", "ok", "unsure"]
    document = run(device := Device(), files("a", "b"))
    assert device.ran == [("b", 1), ("b", 2)] and {r["status"] for r in document["results"]} == {"ok"}
    run(device := Device(), files("a", "b"))
    assert device.ran == []


def test_other_code_measures_again(monkeypatch: pytest.MonkeyPatch) -> None:
    run(Device(), files("a"))
    monkeypatch.setattr("android_bench.measure.batch._code_digest", lambda: "of another version")
    run(device := Device(), files("a"))
    assert len(device.ran) == 2


def test_another_runtime_or_other_cores_measure_again(monkeypatch: pytest.MonkeyPatch) -> None:
    (a,) = files("a")
    result = {"model": "a", "status": "ok"}

    def kept(**options: Any) -> Kept:
        return Kept(HostBackend(**options).identity((1,)), Protocol(), (1,))

    kept().put(a, [result])
    assert kept().get(a) == [result] and kept(profile=True).get(a) is None
    distribution = importlib.metadata.distribution
    changes: dict[str, Any] = {
        "os.sched_getaffinity": lambda pid: {1},
        "android_bench.measure.host.digest": lambda path: "another library",
        "importlib.metadata.distribution": lambda name: Versioned(distribution(name)),
        "platform.node": lambda: "another-computer",
        "android_bench.measure.host._cpu_name": lambda: "another CPU",
    }
    for name, changed in changes.items():
        with monkeypatch.context() as patch:
            patch.setattr(name, changed)
            assert kept().get(a) is None, name
    assert kept().get(a) == [result]


class Versioned:
    """A package of another version with the same files."""

    def __init__(self, package: importlib.metadata.Distribution) -> None:
        self.version, self.files = "99.0", package.files


@pytest.mark.usefixtures("alone")
def test_another_phone_or_program_measures_again(pixel: Adbd, tmp_path: Path) -> None:
    (a,) = files("a")
    result = {"model": "a", "status": "ok"}
    props = {"ro__serialno": "R58M", "ro__build__fingerprint": "google/flame:12/1"}
    furnish(pixel.phone.root, **props)

    def kept(**options: Any) -> Kept:
        target = resolve(pixel.where)
        with contextlib.closing(open_link(target.serial, target.via)) as link:
            return Kept(PhoneBackend(link, target, **options).identity((1, 4)), Protocol(), (1, 4))

    kept().put(a, [result])
    assert kept().get(a) == [result] and kept(delegate="gpu").get(a) is None
    other = tmp_path / "other"
    other.write_text(BENCHMARK + "# another build\n")
    assert kept(binary=other).get(a) is None
    furnish(pixel.phone.root, **props | {"ro__build__fingerprint": "google/flame:12/2"})
    assert kept().get(a) is None
    furnish(pixel.phone.root, **props | {"ro__serialno": "R58N"})
    assert kept().get(a) is None
    furnish(pixel.phone.root, **props)
    assert kept().get(a) == [result]
    tool(pixel.phone.root, "taskset", "echo no >&2; exit 1")  # figures would come from other cores
    assert kept().get(a) is None


def test_a_cache_that_cannot_be_written_costs_no_figures(cache: Path) -> None:
    cache.write_text("a file where a folder is needed")
    events: list[dict[str, Any]] = []
    document = run(Device(), files("a"), on_event=events.append)
    assert document["complete"] and [r["status"] for r in document["results"]] == ["ok", "ok"]
    (said,) = [remark(e) for e in events if e["event"] == "unkept"]
    assert said.startswith("the figures are not kept for another time: cannot write") and "\n" not in said


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


def test_a_folder_on_this_computer(
    tiny: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("android_bench.measure.session._foreign", lambda *_: "")  # whatever else runs here
    folder = tiny["fp32"].parent
    first = bench([folder], "host", [1], resume=True, **QUICK)
    second = bench([folder], "host", [1], resume=True, **QUICK)
    status = {r["model"]: r["status"] for r in first["results"]}
    assert status["torn.tflite"] == status["nan.tflite"] == "failed"
    assert status["fp32.tflite"] == "ok" and len(list((cache / "measured").iterdir())) == 2
    assert [r for r in first["results"] if r["n"]] == [r for r in second["results"] if r["n"]]


def test_kill_9_loses_one_group(
    tiny: dict[str, Path], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("android_bench.measure.session._foreign", lambda *_: "")  # whatever else runs here
    folder = tmp_path / "models"
    folder.mkdir()
    for index in range(3):
        (folder / f"m{index}.tflite").write_bytes(tiny["fp32"].read_bytes() + bytes([index]))
    options = {**QUICK, "resume": True}
    code = (
        "from android_bench import bench\nfrom android_bench.measure import session\nsession._foreign = lambda *_: ''\n"
        f"bench([{str(folder)!r}], 'host', [1, 2, 3, 4], **{options!r})"
    )
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
