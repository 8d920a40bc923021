"""Rounds are kept as they come: what is measured again, and what is not."""

import contextlib
import importlib.metadata
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from adbd import Adbd
from phone import BENCHMARK, furnish, tool
from played import Played, quiet

from android_bench import BenchError, DeviceLost, DeviceMissing, Interrupted, bench
from android_bench.adb.link import open_link
from android_bench.devices.naming import resolve
from android_bench.events import remark
from android_bench.measure.host import HostBackend
from android_bench.measure.kept import Kept
from android_bench.measure.phone import PhoneBackend
from android_bench.measure.protocol import Loaded, Protocol, Round
from android_bench.measure.session import Session
from android_bench.models import ModelFile
from android_bench.output.parse import Stat

STAT = Stat(count=5, first_ms=1.0, min_ms=1.0, max_ms=2.0, mean_ms=1.5, std_ms=0.1, median_ms=1.5)
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


FIGURES = Loaded(1.0, 2.0, {"runtime": "x"}, ("a note",)), [quiet(5.0), Round([], stat=STAT)]


def files(*names: str, size: int = 1) -> list[ModelFile]:
    return [ModelFile(Path(name), name, name * 64, size) for name in names]


def run(
    device: Device,
    models: list[ModelFile],
    threads: tuple[int, ...] = (1, 2),
    *,
    fresh: bool = False,
    turns: bool = False,
    on_event: Any = None,
    **protocol: Any,
) -> Any:
    plan = Protocol(**{"rounds": 1, "repeats": 0, "spacing_s": 0.0, **protocol})
    kept = Kept(device, plan, models if turns else (), fresh=fresh)
    return Session(device, models, threads, plan, on_event, kept=kept, turns=turns).run()


def test_a_killed_session_goes_on_where_it_was() -> None:
    names = "abcdefghij"
    with pytest.raises(Interrupted) as stop:
        run(device := Device(g=KeyboardInterrupt()), files(*names))
    done = stop.value.document
    assert not done["complete"] and {r["model"] for r in done["results"] if r["status"] == "ok"} == set(
        "abcdef"
    )
    assert {r["model"] for r in done["results"] if r["status"] == "failed"} == set("ghij")
    events: list[dict[str, Any]] = []
    document = run(device := Device(), files(*names), on_event=events.append)
    assert {name for name, _ in device.ran} == set("ghij")
    (plan,) = [e for e in events if e["event"] == "plan"]
    assert plan == {"event": "plan", "cases": 20, "rounds": 1, "kept": 12}
    assert remark(plan) == "12 of 20 rounds measured before and not again; --fresh measures them again"
    assert [(r["model"], r["threads"], r["status"]) for r in document["results"]] == [
        (name, threads, "ok") for name in names for threads in (1, 2)
    ]
    assert document["complete"] and all(r["measured"] and r["rounds"] for r in document["results"])
    run(device := Device(), files(*names))
    assert device.ran == []
    run(device, files("a"), fresh=True)
    assert device.ran == [("a", 1), ("a", 2)]


def scripted(*steps: Any) -> Played:
    return Played({name: list(steps) for name in "ab"})


def test_single_rounds_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(("2026-01-01T00:00:00Z", "2026-01-01T00:09:00Z"))
    monkeypatch.setattr("android_bench.measure.session._utc", lambda: next(times))
    options = {"threads": (1,), "rounds": 4}
    with pytest.raises(Interrupted):
        run(scripted(quiet(5.0), quiet(5.1), KeyboardInterrupt()), files("a"), **options)
    events: list[dict[str, Any]] = []
    device = scripted(quiet(5.2), quiet(5.3), BenchError("no third one was needed"))
    (result,) = run(device, files("a"), on_event=events.append, **options)["results"]
    assert [r["median_ms"] for r in result["rounds"]] == [5.0, 5.1, 5.2, 5.3]
    assert [e["round"] for e in events if e["event"] == "round"] == [2, 3]
    assert (result["status"], result["measured"]) == ("ok", "2026-01-01T00:09:00Z")
    assert result["why"] == "its rounds are of 2 sessions, the first at 2026-01-01T00:00:00Z"


def test_nobody_waits_for_rounds_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("android_bench.measure.session.time.sleep", slept.append)
    options = {"threads": (1,), "rounds": 4, "spacing_s": 60.0}
    with pytest.raises(Interrupted):
        run(scripted(*[quiet(5.0)] * 3, KeyboardInterrupt()), files("a"), **options)
    slept.clear()
    run(scripted(quiet(5.0)), files("a"), **options)
    assert slept == [0.0]
    run(scripted(), files("a"), **options)
    assert slept == [0.0]


def test_no_more_repeats_after_a_kill_than_without() -> None:
    busy = Round([5.0] * 5, foreign_cores=1.5, wait=0.0)
    options = {"threads": (1,), "rounds": 2, "repeats": 2}
    with pytest.raises(Interrupted):
        run(scripted(quiet(5.0), busy, busy, KeyboardInterrupt()), files("a"), **options)
    (result,) = run(scripted(busy, BenchError("a fifth round")), files("a"), **options)["results"]
    assert result["status"] == "unsure" and len(result["rounds"]) == 4
    (result,) = run(scripted(quiet(5.0), quiet(5.0)), files("a"), **options)["results"]
    assert result["status"] == "ok" and len(result["rounds"]) == 2  # what was unsure was forgotten


def test_models_that_take_turns_keep_whole_turns_only() -> None:
    options = {"threads": (1,), "rounds": 3, "turns": True}
    device = Played({"a": [quiet(5.0)] * 2, "b": [quiet(5.0), KeyboardInterrupt()]})
    with pytest.raises(Interrupted):
        run(device, files("a", "b"), **options)
    events: list[dict[str, Any]] = []
    run(scripted(*[quiet(5.0)] * 2), files("a", "b"), on_event=events.append, **options)
    measured = [(e["round"], e["model"]) for e in events if e["event"] == "round"]
    assert sorted(measured) == [(1, "a"), (1, "b"), (2, "a"), (2, "b")]
    for other in (files("b", "a"), files("a", "c"), [*files("a"), ModelFile(Path("a"), "copy", "a" * 64, 1)]):
        fresh = Played({file.name: [quiet(5.0)] * 3 for file in other})
        events.clear()
        run(fresh, other, on_event=events.append, **options)
        assert events[0]["kept"] == 0  # those rounds were measured beside another model


def test_a_disturbed_turn_is_repeated_whole() -> None:
    busy = Round([5.0] * 5, foreign_cores=1.5, wait=0.0)
    device = Played({"a": [quiet(5.0)] * 3, "b": [quiet(5.0), busy, quiet(5.0)]})
    a, b = run(device, files("a", "b"), threads=(1,), rounds=2, repeats=1, turns=True)["results"]
    assert len(a["rounds"]) == len(b["rounds"]) == 3 and (a["status"], b["status"]) == ("ok", "ok")


def test_what_counts_as_the_same_measurement() -> None:
    run(device := Device(), files("a"))
    device.ran.clear()
    run(device, files("a"), threads=(1, 4))
    run(device, files("a"), runs=31)
    run(device, [ModelFile(Path("a"), "a", "other" * 12, 1)])
    assert len(device.ran) == 1 + 2 + 2
    device.ran.clear()
    (result, _) = run(device, [ModelFile(Path("b"), "renamed", "a" * 64, 1)])["results"]
    assert device.ran == [] and result["model"] == "renamed"
    device.name = "another phone"
    run(device, files("a"))
    assert len(device.ran) == 2


def test_failures_are_shown_and_tried_again() -> None:
    document = run(device := Device(b=BenchError("no such operator")), files("a", "b", "c"))
    assert [r["status"] for r in document["results"]] == ["ok", "ok", "failed", "failed", "ok", "ok"]
    assert document["complete"] and document["results"][2]["why"] == "no such operator"
    run(device := Device(), files("a", "b", "c"))
    assert device.ran == [("b", 1), ("b", 2)]


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
    assert device.ran == [("b", 2)] and {r["status"] for r in document["results"]} == {"ok"}
    run(device := Device(), files("a", "b"))
    assert device.ran == []


def test_other_code_measures_again(monkeypatch: pytest.MonkeyPatch) -> None:
    run(Device(), files("a"))
    monkeypatch.setattr("android_bench.measure.kept._code_digest", lambda: "of another version")
    run(device := Device(), files("a"))
    assert len(device.ran) == 2


def test_another_runtime_or_other_cores_measure_again(monkeypatch: pytest.MonkeyPatch) -> None:
    (a,) = files("a")

    def kept(**options: Any) -> Any:
        return Kept(HostBackend(**options), Protocol()).get(a, 1)

    Kept(HostBackend(), Protocol()).put(a, 1, *FIGURES)
    assert kept() == FIGURES and kept(profile=True) is None
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
            assert kept() is None, name
    assert kept() == FIGURES


class Versioned:
    """A package of another version with the same files."""

    def __init__(self, package: importlib.metadata.Distribution) -> None:
        self.version, self.files = "99.0", package.files


@pytest.mark.usefixtures("alone")
def test_another_phone_or_program_measures_again(pixel: Adbd, tmp_path: Path) -> None:
    (a,) = files("a")
    props = {"ro__serialno": "R58M", "ro__build__fingerprint": "google/flame:12/1"}
    furnish(pixel.phone.root, **props)

    def kept(*figures: Any, **options: Any) -> Any:
        target = resolve(pixel.where)
        with contextlib.closing(open_link(target.serial, target.via)) as link:
            kept = Kept(PhoneBackend(link, target, **options), Protocol())
            return kept.put(a, 4, *figures) if figures else kept.get(a, 4)

    kept(*FIGURES)
    assert kept() == FIGURES and kept(delegate="gpu") is None
    other = tmp_path / "other"
    other.write_text(BENCHMARK + "# another build\n")
    assert kept(binary=other) is None
    furnish(pixel.phone.root, **props | {"ro__build__fingerprint": "google/flame:12/2"})
    assert kept() is None
    furnish(pixel.phone.root, **props | {"ro__serialno": "R58N"})
    assert kept() is None
    furnish(pixel.phone.root, **props)
    assert kept() == FIGURES
    tool(pixel.phone.root, "taskset", "echo no >&2; exit 1")  # figures would come from other cores
    assert kept() is None


def test_a_cache_that_cannot_be_written_costs_no_figures(cache: Path) -> None:
    cache.write_text("a file where a folder is needed")
    events: list[dict[str, Any]] = []
    document = run(Device(), files("a"), on_event=events.append)
    assert document["complete"] and [r["status"] for r in document["results"]] == ["ok", "ok"]
    (said,) = [remark(e) for e in events if e["event"] == "unkept"]
    assert said.startswith("the rounds are not kept for another time: cannot write") and "\n" not in said


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


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:100],
        lambda text: text.replace("5.0", "-5.0"),
        lambda text: text.replace("5.0", "Infinity"),
        lambda text: text.replace('"samples_ms"', '"samples"'),
        lambda text: "[]",
    ],
)
def test_figures_that_cannot_be_are_measured_again(spoil: Any, cache: Path) -> None:
    run(device := Device(), files("a"), threads=(1,))
    (kept,) = (cache / "measured").iterdir()
    kept.write_text(spoil(kept.read_text()))
    run(device, files("a"), threads=(1,))
    assert len(device.ran) == 2


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


def test_kill_9_loses_one_round(tiny: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("android_bench.measure.session._foreign", lambda *_: "")  # whatever else runs here
    options = {**QUICK, "resume": True, "rounds": 12, "spacing_s": 0.1}
    code = f"from android_bench import bench\nbench([{str(tiny['fp32'])!r}], 'host', [1, 2], **{options!r})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    end = time.monotonic() + 60

    def kept() -> int:
        found = [json.loads(path.read_text()) for path in (cache / "measured").glob("[!.]*")]
        return sum(len(record["rounds"]) for record in found)

    while kept() < 4:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    there = kept()
    events: list[dict[str, Any]] = []
    document = bench([tiny["fp32"]], "host", [1, 2], on_event=events.append, **options | {"spacing_s": 0.1})
    assert events[0]["kept"] == there >= 4
    assert len([e for e in events if e["event"] == "round" and not e["repeat"]]) == 24 - there
    for result in document["results"]:
        assert len({r["session"] for r in result["rounds"]}) == 2
