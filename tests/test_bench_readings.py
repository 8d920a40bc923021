"""What a phone says of itself and cannot be true is said and not used; cores that are offline make a row doubtful."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adbd import Adbd
from phone import QUICK, tool

from android_bench.adb.link import FOLDER
from android_bench.devices.probe import State
from android_bench.measure.clocks import Clocks
from android_bench.measure.heat import Heat
from android_bench.measure.load import foreign_cores
from android_bench.measure.protocol import Protocol

pytestmark = pytest.mark.usefixtures("alone")
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def measured(call: Call, pixel: Adbd) -> Callable[..., dict[str, Any]]:
    """Measures a model; gives its row (the last), with the ``device`` in it."""

    def measure(*options: str) -> dict[str, Any]:
        words = (
            "bench",
            "a.tflite",
            "--device",
            pixel.where,
            "--fresh",
            "--json",
            *QUICK,
            "--threads",
            "1",
            *options,
        )
        code, out, err = call(*words)
        assert code == 0, err
        document = json.loads(out)
        return document["results"][-1] | {"device": document["device"], "before": document["before"]}

    return measure


def cpu(phone: Adbd, core: int, name: str) -> Path:
    return phone.phone.root / f"sys/devices/system/cpu/cpu{core}/cpufreq/{name}"


def offline(phone: Adbd, *cores: int, said: bool = True) -> None:
    """Switches cores off: their folders of clocks go, and where ``said`` the list of cores changes."""
    for core in cores:
        shutil.rmtree(cpu(phone, core, "x").parent)
    here = ",".join(str(core) for core in range(8) if core not in cores)
    (phone.phone.root / "sys/devices/system/cpu/online").write_text(f"{here}\n" if said else "")


@pytest.mark.parametrize(
    ("skin", "battery", "says"),
    [
        (0, 0, "the battery's temperature is impossible (0.0 C)"),
        (5_000_000, 50_000, "the skin's temperature is impossible (5000.0 C)"),
        (-40_000, 50_000, "the battery's temperature is impossible (5000.0 C)"),
        (None, None, "the phone does not tell how warm it is"),
    ],
)
def test_temperatures(skin: int | None, battery: int | None, says: str, pixel: Adbd, measured: Any) -> None:
    """Neither a wait of five minutes for 5000 C to fall, nor a word of silence when nothing is known."""
    zone = pixel.phone.root / "sys/class/thermal/thermal_zone0/temp"
    zone.unlink() if skin is None else zone.write_text(f"{skin}\n")
    line = "" if battery is None else f"  temperature: {battery}\\n"
    tool(pixel.phone.root, "dumpsys", f"case $1 in battery) printf '  level: 85\\n{line}';; esac")
    row = measured()
    assert row["status"] == "ok" and says in row["why"] and "how warm" in row["why"]
    assert row["before"]["temperature_c"] == {} and says in row["before"]["doubts"]


def test_one_good_temperature_is_enough(pixel: Adbd, measured: Any) -> None:
    tool(
        pixel.phone.root, "dumpsys", "case $1 in battery) printf '  level: 5000\\n  temperature: 0\\n';; esac"
    )
    row = measured()
    assert row["before"]["temperature_c"] == {"skin": 31.5} and row["before"]["battery_percent"] is None
    assert "the battery's temperature is impossible (0.0 C)" in row["why"] and "how warm" not in row["why"]


def test_throttling_that_does_not_exist(pixel: Adbd, measured: Any) -> None:
    tool(pixel.phone.root, "dumpsys", "case $1 in thermalservice) echo 'Thermal Status: 99';; esac")
    row = measured()
    assert row["status"] == "ok" and "thermal status is impossible (99)" in row["why"]


@pytest.mark.parametrize("name", ["scaling_max_freq", "scaling_cur_freq"])
@pytest.mark.parametrize("khz", [0, 99_999_999])
def test_clocks(name: str, khz: int, pixel: Adbd, measured: Any) -> None:
    cpu(pixel, 7, name).write_text(f"{khz}\n")
    row = measured()
    assert row["status"] == "ok" and row["mask"] == "f0"
    assert f"the phone's {name} is impossible ({khz} kHz, core 7)" in row["why"]


def test_a_highest_clock_that_cannot_be(pixel: Adbd, measured: Any) -> None:
    """Core 0 must not become the fastest one; as its clock is not known, the cores are those of the chip's profile."""
    cpu(pixel, 0, "cpuinfo_max_freq").write_text("99999999\n")
    row = measured()
    assert [c["mask"] for c in row["device"]["clusters"]] == ["0f", "70", "80"] and row["mask"] == "f0"
    assert "cpuinfo_max_freq is impossible (99999999 kHz, core 0)" in row["why"]


@pytest.mark.parametrize(
    ("stat", "says"),
    [
        ("cpu  100 0 100 9000 0 0 0 0 0 0", "the phone's load counter stands still"),
        ("cpu  $((n * 100000)) 0 0 0 0 0 0 0", "the phone's load is impossible"),
        ("cpu  $((1000000 - n * 800)) 0 0 $((n * 2000)) 0 0 0 0", "the phone's load is impossible"),
    ],
)
def test_load(stat: str, says: str, pixel: Adbd, measured: Any) -> None:
    tool(
        pixel.phone.root,
        "head",
        f'n=$(cat n 2>/dev/null || echo 0); n=$((n + 1)); echo $n > n; echo "{stat}"',
    )
    folder = pixel.phone.path(FOLDER)
    folder.mkdir(parents=True)
    (folder / "behaviour").write_text('case "$*" in *num_runs=5*) sleep 0.6;; esac\n')
    row = measured()
    assert (
        row["status"] == "ok" and says in row["why"] and "load of other programs is not known" in row["why"]
    )
    assert [r["foreign_cores"] for r in row["rounds"]] == [None, None]


BEGIN = "cpu  100 0 0 900 0 0 0 0\n10.00 70.1\n"


@pytest.mark.parametrize(
    ("begin", "end", "cores", "doubt"),
    [
        (BEGIN, "0m0s 0m0s\n0m3.5s 0m0.5s\ncpu  500 20 180 1900 0 0 0 0\n12.00 80.2\n", 1.0, ""),
        (BEGIN, "0m0s 0m0s\n0m5.5s 0m1.0s\ncpu  500 20 180 1900 0 0 0 0\n12.00 80.2\n", 0.0, ""),
        ("10.00 7\n", "0m0s 0m0s\n0m1s 0m0s\n12.00 9\n", None, ""),
        (BEGIN, "cpu  500 20 180 1900 0 0 0 0\n12.00 80.2\n", None, ""),
        (
            BEGIN,
            "0m0s 0m0s\n0m0.1s 0m0s\ncpu  110 0 0 900 0 0 0 0\n10.20 71\n",
            None,
            "",
        ),  # too short to tell
        (BEGIN, "0m0s 0m0s\n0m3.5s 0m0.5s\ncpu  100 0 0 900 0 0 0 0\n12.00 80.2\n", None, "stands still"),
        (
            BEGIN,
            "0m0s 0m0s\n0m3.5s 0m0.5s\ncpu  110 0 0 2500 0 0 0 0\n12.00 80.2\n",
            None,
            "load is impossible",
        ),
        (
            BEGIN,
            "0m0s 0m0s\n0m3.5s 0m0.5s\ncpu  500100 0 0 900 0 0 0 0\n12.00 80.2\n",
            None,
            "load is impossible",
        ),
        (
            BEGIN,
            "0m0s 0m0s\n0m3.5s 0m0.5s\ncpu  50 0 0 1900 0 0 0 0\n12.00 80.2\n",
            None,
            "load is impossible",
        ),
        (
            BEGIN,
            "0m0s 0m0s\n0m3.5s 0m0.5s\ncpu  500 20 180 1900 0 0 0 0\n10.00 70.1\n",
            None,
            "clock is impossible",
        ),
        (
            BEGIN,
            "0m0s 0m0s\n0m3.5s 0m0.5s\ncpu  500 20 180 1900 0 0 0 0\n3.00 70.1\n",
            None,
            "clock is impossible",
        ),
    ],
)
def test_load_of_other_programs(begin: str, end: str, cores: float | None, doubt: str) -> None:
    found, why = foreign_cores(begin, end, 8)
    assert found == cores and (doubt in why if doubt else not why)


@pytest.mark.parametrize(
    ("temperatures", "readings", "took", "stuck"),
    [
        ({"cpu": 50.0, "skin": 31.5}, 6, 21.0, True),
        ({"cpu": 50.0, "skin": 31.5}, 5, 21.0, False),
        ({"cpu": 50.0, "skin": 31.5}, 6, 19.0, False),
        ({"battery": 30.0}, 23, 250.0, False),  # a battery is slow
        ({"battery": 30.0}, 24, 301.0, True),
        ({}, 30, 400.0, False),  # nothing is told, which is said elsewhere
    ],
)
def test_temperatures_that_stand_still(
    temperatures: dict[str, float], readings: int, took: float, stuck: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("android_bench.measure.heat.time.monotonic", lambda: now)
    told = dict(temperatures)
    heat = Heat(lambda: State(temperature_c=dict(told)), lambda seconds: None, lambda event: None)
    for number in range(readings):
        now = took * number / (readings - 1)
        heat.state()
    assert bool(heat.stuck) == stuck and (not stuck or f"{readings} readings in {took:.0f} s" in heat.stuck)
    told["cpu"] = 51.0
    heat.state()
    assert not heat.stuck


def test_a_stuck_sensor_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It clears nobody: the round is doubtful."""
    now = 0.0
    monkeypatch.setattr("android_bench.measure.heat.time.monotonic", lambda: now)

    def rest(seconds: float) -> None:
        nonlocal now
        now += seconds

    heat = Heat(lambda: State(temperature_c={"cpu": 60.0, "skin": 45.0}), rest, lambda event: None)
    _, why = heat.cool_down(Protocol())
    assert why == "45.0 C warm after 25 s of cooling down" and "stand still" in heat.stuck


STILL = "the phone's current clocks stand still, at rest and at work"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("", True),  # also those that are always the highest: a throttled phone would show the same
        (
            "echo 1234000 > cpu7/cpufreq/scaling_cur_freq",
            False,
        ),  # one core that works at another clock is enough
        ("for c in cpu*; do echo performance > $c/cpufreq/scaling_governor; done", False),
        ("for c in cpu*; do cat $c/cpufreq/scaling_max_freq > $c/cpufreq/scaling_min_freq; done", False),
        ("rm cpu*/cpufreq/scaling_cur_freq", False),  # a phone that tells no clocks
    ],
)
def test_clocks_that_stand_still(
    change: str, says: bool, pixel: Adbd, measured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said, and no reason to distrust a figure."""
    monkeypatch.setattr("android_bench.measure.clocks._SECONDS", 0.0)
    folder = pixel.phone.path(FOLDER)
    folder.mkdir(parents=True)
    cores = pixel.phone.root / "sys/devices/system/cpu"
    (folder / "behaviour").write_text(f"( cd {cores}; {change or ':'} )\n")
    row = measured("--rounds", "4")
    assert row["status"] == "ok" and (STILL in row["why"]) == says
    assert row["why"].count("stand still") <= 1 and row["n"] == 20  # all four rounds are used


@pytest.mark.parametrize(
    ("working", "took", "says"), [(3, 10.5, True), (2, 60.0, False), (3, 9.5, False), (0, 60.0, False)]
)
def test_clocks_are_watched_for_a_while(
    working: int, took: float, says: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle phone is no reason to say anything, however long it is looked at."""
    now = 7.0
    monkeypatch.setattr("android_bench.measure.clocks.time.monotonic", lambda: now)
    clocks = Clocks()
    for number in range(working):
        now = 7.0 + took * number / (working - 1)
        clocks.at_work({0: 1_000_000})
    for _ in range(20):
        clocks.at_rest(State(khz={0: 1_000_000}, governor={0: "schedutil"}))
    assert bool(clocks.stuck) == says
    clocks.at_rest(State(khz={0: 1_200_000}))
    assert not clocks.stuck


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize(
    ("cores", "words"), [((4, 5, 6, 7), "cores 4-7 are offline"), ((7,), "core 7 is offline")]
)
def test_big_cores_that_are_offline(
    cores: tuple[int, ...], words: str, said: bool, pixel: Adbd, measured: Any
) -> None:
    """The program is pinned to what was asked for, the big ones of the chip, and the row is marked."""
    offline(pixel, *cores, said=said)
    row = measured()
    assert row["status"] == "unsure" and words in row["why"] and row["mask"] == "f0"
    assert row["device"]["cpu"] == "SM8150" or row["device"]["profile"] == "sd855"
    assert [c["mask"] for c in row["device"]["clusters"]] == ["0f", "70", "80"]
    assert f"{words}; the big cores are those of its profile" in row["device"]["notes"]


def test_little_cores_that_are_offline_do_not_matter(pixel: Adbd, measured: Any) -> None:
    offline(pixel, 2)
    row = measured()
    assert row["status"] == "ok" and row["mask"] == "f0"
    assert measured("--threads", "8")["status"] == "unsure"  # these are to run on all


def test_offline_cores_of_a_chip_that_nobody_knows(pixel: Adbd, measured: Any) -> None:
    tool(pixel.phone.root, "getprop", "echo '[ro.product.cpu.abilist]: [arm64-v8a]'")
    (pixel.phone.root / "proc/cpuinfo").write_text("processor\t: 0\n")
    offline(pixel, 4, 5, 6, 7)
    row = measured()
    assert row["status"] == "unsure" and row["mask"] is None and "cores 4-7 are offline" in row["why"]
    assert "not pinned" in row["why"]


def test_cores_that_come_back(pixel: Adbd, measured: Any) -> None:
    """Pinning to cores that are all offline fails, and is tried again with each file."""
    offline(pixel, 4, 5, 6, 7)
    tool(
        pixel.phone.root,
        "taskset",
        f'grep -q 7 {pixel.phone.root}/sys/devices/system/cpu/online || {{ echo "Invalid argument"; exit 1; }}; shift; exec "$@"',
    )
    row = measured()
    assert row["status"] == "unsure" and "not pinned: taskset f0 failed" in row["why"]


def test_devices_says_it_too(call: Call, pixel: Adbd) -> None:
    offline(pixel, 7)
    tool(pixel.phone.root, "dumpsys", "case $1 in battery) printf '  temperature: 50000\\n';; esac")
    code, out, _ = call("devices", pixel.where, "--json")
    (row,) = json.loads(out)["devices"]
    assert code == 0 and not row["fit"] and row["temperature_c"] == 31.5
    assert "core 7 is offline" in row["why"][0] and "impossible (5000.0 C)" in row["why"][1]
