"""What computes on the phone and what it costs there: delegates asked for and got, operators, energy."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import pytest
from adbd import Adbd
from phone import furnish, tool

from android_bench import BenchUsageError, bench
from android_bench.adb.link import FOLDER
from android_bench.measure.energy import milliwatts
from android_bench.measure.host import _operators
from android_bench.output.parse import parse
from android_bench.output.report import print_profile

pytestmark = pytest.mark.usefixtures("alone")
DATA = Path(__file__).parent / "data" / "bench"
QUICK: dict[str, Any] = {"warmup": 2, "runs": 5, "rounds": 2, "spacing_s": 0.0, "repeats": 0, "cool_s": 0.0}


def measure(phone: Adbd, **options: Any) -> dict[str, Any]:
    (result,) = bench(["a.tflite"], phone.where, [1], **{**QUICK, **options})["results"]
    return result


def put(phone: Adbd, name: str, text: str) -> None:
    folder = phone.phone.path(FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


FULL = "INFO: Explicitly applied ASKED delegate, and the model graph will be completely executed by the delegate.\n"
PART = (
    "INFO: Explicitly applied ASKED delegate, and the model graph will be partially executed by the delegate w/ 3 "
    "delegate kernels.\n"
)
NOT = "INFO: Though ASKED delegate is explicitly applied, the model graph will not be executed by the delegate.\n"
CREATED = "INFO: Created TensorFlow Lite delegate for ASKED.\n"


@pytest.mark.parametrize(
    ("says", "delegates", "why"),
    [
        (CREATED + FULL, ["GPU", "XNNPACK"], ""),
        (CREATED + PART, ["GPU", "XNNPACK"], "GPU computes a part of the network only"),
        (CREATED + NOT, ["XNNPACK"], "asked for GPU, got XNNPACK"),
        ("", ["XNNPACK"], "asked for GPU, got XNNPACK"),
        (
            CREATED
            + "INFO: Replacing 136 node(s) with delegate (TfLiteHexagonDelegate) node, yielding 1 partitions.\n",
            ["Hexagon", "XNNPACK"],
            "asked for GPU, got Hexagon and XNNPACK",
        ),
    ],
)
def test_what_was_asked_for_and_what_was_got(says: str, delegates: list[str], why: str, pixel: Adbd) -> None:
    put(pixel, "says", says)
    result = measure(pixel, delegate="gpu")
    assert (result["delegate"], result["delegates"]) == ("gpu", delegates) and result["status"] == "ok"
    assert (why in result["why"]) if why else "GPU" not in result["why"]


def test_nnapi_and_no_delegate_at_all(pixel: Adbd) -> None:
    put(pixel, "says", FULL)
    assert measure(pixel, delegate="nnapi")["delegates"] == ["NNAPI", "XNNPACK"]
    put(pixel, "silent", "")
    assert "asked for XNNPACK, got no delegate" in measure(pixel)["why"]


def test_litert_has_no_nnapi(pixel: Adbd) -> None:
    put(pixel, "behaviour", "kind=litert\n")
    result = measure(pixel, delegate="nnapi")
    assert (
        result["status"] == "failed"
        and "(litert) has no nnapi" in result["why"]
        and "cpu, gpu, npu" in result["why"]
    )
    put(pixel, "silent", "")
    assert "does not say what it used" in measure(pixel, delegate="gpu")["why"]


def test_this_computer_has_its_cpu_only() -> None:
    with pytest.raises(BenchUsageError, match="this computer is measured on its CPU"):
        bench(["a.tflite"], "host", [1], delegate="gpu")


@pytest.mark.parametrize(
    ("line", "all_", "partly"),
    [
        (
            "VERBOSE: Replacing 58 out of 58 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 1 partitions",
            ("GPU",),
            (),
        ),
        (
            "INFO: Replacing 5 out of 58 node(s) with delegate (LITERT_CL) node, yielding 2 partitions",
            ("GPU",),
            ("GPU",),
        ),
        ("INFO: Applied Hexagon delegate, and the model graph will be completely executed", ("Hexagon",), ()),
        (
            "INFO: Replacing 136 node(s) with delegate (TfLiteHexagonDelegate) node, yielding 1 partitions.",
            ("Hexagon",),
            (),
        ),
        (
            "INFO: Created TensorFlow Lite delegate for GPU.\n"
            "INFO: Replacing 64 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 3 partitions.",
            ("GPU",),
            ("GPU",),
        ),
        (
            "INFO: Created TensorFlow Lite delegate for GPU.\n"
            "INFO: Replacing 136 node(s) with delegate (TfLiteHexagonDelegate) node, yielding 1 partitions.",
            ("Hexagon",),
            (),
        ),
        ("INFO: Created TensorFlow Lite delegate for GPU.", ("GPU",), ()),
        (
            "INFO: EXTERNAL delegate created.\n"
            "VERBOSE: Replacing 31 out of 31 node(s) with delegate (Vx Delegate) node, yielding 1 partitions for the "
            "whole graph.\nINFO: Explicitly applied EXTERNAL delegate, and the model graph will be completely "
            "executed by the delegate.",
            ("EXTERNAL (Vx Delegate)",),
            (),
        ),
        (
            "INFO: Applied EXTERNAL delegate.\nVERBOSE: Replacing 30 out of 31 node(s) with delegate (Vx Delegate) node",
            ("EXTERNAL (Vx Delegate)",),
            ("EXTERNAL (Vx Delegate)",),
        ),
        (
            "VERBOSE: Replacing 5 out of 64 node(s) with delegate (TfLiteNnapiDelegate) node, yielding 5 partitions.\n"
            "VERBOSE: Replacing 59 out of 62 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 5 partitions.",
            ("NNAPI", "XNNPACK"),
            ("NNAPI", "XNNPACK"),
        ),
        (
            "INFO: Replacing 1 out of 1 node(s) with delegate (DispatchDelegate) node, yielding 1",
            ("NPU",),
            (),
        ),
    ],
)
def test_other_words_for_a_delegate(line: str, all_: tuple[str, ...], partly: tuple[str, ...]) -> None:
    text = next(DATA.glob("01_*.txt")).read_text()
    whole = parse(text.replace("INFO: Created TensorFlow Lite XNNPACK delegate for CPU.", line))
    assert (whole.delegates, whole.partly) == (all_, partly)


def test_operators_by_type_and_by_layer(pixel: Adbd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    sample = next(DATA.glob("04_*.txt")).read_text()
    put(pixel, "profile", sample[sample.index("INFO: Profiling Info for Benchmark Initialization") :])
    result = measure(pixel, profile=True)
    profile = result["profile"]
    assert list(profile["by_type_ms"].items())[:2] == [
        ("Convolution (NHWC, F32) IGEMM", 1.187),
        ("CONV_2D", 0.871),
    ]
    assert [layer["type"] for layer in profile["layers"]][-1] == "SOFTMAX" and len(profile["layers"]) == 6
    text = io.StringIO()
    print_profile({"results": [result]}, text, most=2)
    assert "a.tflite, 1 thread: by type" in text.getvalue() and "the 2 slowest of 6 layers" in text.getvalue()
    assert "Delegate/Convolution (NHWC, F32) IGEMM:0" in text.getvalue() and "43.2" in text.getvalue()
    pixel.phone.path(f"{FOLDER}/profile").unlink()
    assert "gave no operator profile" in measure(pixel, profile=True)["why"]


def test_operators_on_this_computer(tiny: dict[str, Path]) -> None:
    """The runtime's own times, of the network whose layers are known: two convolutions, a mean, a dense layer."""
    files = [tiny["fp32"], tiny["int8"]]
    results = bench(files, "host", [1], profile=True, **{**QUICK, "rounds": 1})["results"]
    for result in results:
        layers = result["profile"]["layers"]
        kinds = [layer["type"] for layer in layers]
        assert sum("Convolution" in kind for kind in kinds) == 2 and any("Mean" in kind for kind in kinds), (
            kinds
        )
        assert sum(layer["percent"] for layer in layers) == pytest.approx(100, abs=0.1)
        assert next(iter(result["profile"]["by_type_ms"].values())) > 0
        assert "profile" not in result["why"]
    (torn,) = bench([tiny["torn"]], "host", [1], profile=True, **QUICK)["results"]
    assert torn["status"] == "failed"
    assert _operators(str(tiny["torn"]), "1")[1][0].startswith("no operator profile: ")


def unplug(phone: Adbd, current: int, voltage: int) -> None:
    """Discharging, with what the battery's files say."""
    tool(phone.phone.root, "dumpsys", "printf '  level: 85\\n  status: 3\\n  temperature: 300\\n'")
    battery = phone.phone.path("/sys/class/power_supply/battery")
    battery.mkdir(parents=True, exist_ok=True)
    (battery / "current_now").write_text(f"{current}\n")
    (battery / "voltage_now").write_text(f"{voltage}\n")


def test_energy_of_an_inference_on_the_battery(pixel: Adbd) -> None:
    put(pixel, "behaviour", 'case "$*" in *num_runs=5*) sleep 2;; esac\n')
    unplug(pixel, -350_000, 4_000_000)
    result = measure(pixel, rounds=1)
    # 0.35 A x 4 V = 1.4 W, over 8.02 ms
    assert [r["power_mw"] for r in result["rounds"]] == [1400.0]
    assert result["energy_mj"] == pytest.approx(1.4 * 8.02, rel=1e-6)
    end = time.monotonic() + 10
    while pixel.phone.running():  # the sampler is in its last pause
        assert time.monotonic() < end
        time.sleep(0.1)


def test_energy_is_unknown_on_a_charger_and_where_it_may_not_be_read(pixel: Adbd) -> None:
    unplug(pixel, -350_000, 4_000_000)
    furnish(pixel.phone.root)  # plugged in
    assert measure(pixel, rounds=1)["energy_mj"] is None
    assert not any("current_now" in command for command in pixel.phone.commands)
    put(pixel, "behaviour", 'case "$*" in *num_runs=5*) sleep 1;; esac\n')
    unplug(pixel, 1, 1)
    for file in pixel.phone.path("/sys/class/power_supply/battery").iterdir():
        file.unlink()
    assert measure(pixel, rounds=1)["energy_mj"] is None


@pytest.mark.parametrize(
    ("text", "power"),
    [
        ("-350000 4000000\n-450000 4000000\n", 1600.0),  # microampere, microvolt
        ("350 4000\n", 1400.0),  # milliampere, millivolt
        ("0 4000000\n\nPermission denied\n-350000\n", None),
        ("", None),
    ],
)
def test_units_of_current_and_voltage(text: str, power: float | None) -> None:
    assert milliwatts(text) == power
