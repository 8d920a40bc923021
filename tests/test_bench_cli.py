"""``edgecls bench`` and ``edgecls devices`` against a phone that the tests play: what is said, kept and returned."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adbd import Adbd, AdbServer
from phone import Phone, tool

from android_bench.adb.link import FOLDER
from edgecls.report import write_bench
from edgecls.workflow.benching import add_published
from edgecls.workflow.zoo_files import choose, zoo_files

ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00"
QUICK = ("--runs", "5", "--warmup", "1", "--rounds", "1")
pytestmark = pytest.mark.usefixtures("alone")
Call = Callable[..., tuple[int, str, str]]


def refused(err: str) -> str:
    """The one line of an error; remarks on the way may stand before it."""
    *_, line = err.splitlines()
    assert err.count("edgecls: error: ") == 1 and line.startswith("edgecls: error: "), err
    return line


def test_no_phone(call: Call) -> None:
    code, _, err = call("bench", "a.tflite", "--device", "sd855")
    assert code == 3 and "no phone is attached" in refused(err)


@pytest.mark.parametrize(
    ("state", "says"), [("unauthorized", "accept the USB debugging prompt"), ("offline", "unlock the phone")]
)
def test_phone_that_is_not_ready(
    state: str, says: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = AdbServer({"R58M": Phone(tmp_path / "phone")}, state).start()
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.port))
    for device in ("sd855", "R58M"):
        code, _, err = call("bench", "a.tflite", "--device", device)
        assert code == 3 and state in refused(err) and says in err
    code, out, _ = call("devices", "--json")
    (row,) = json.loads(out)["devices"]
    assert code == 0 and not row["fit"] and says in row["why"][0]
    server.stop()


def test_phone_that_does_not_trust_us(call: Call, pixel: Adbd) -> None:
    pixel.answer = "refuse"
    code, _, err = call("bench", "a.tflite", "--device", pixel.where)
    assert code == 3 and "does not trust this computer" in refused(err)


@pytest.mark.parametrize(
    ("binary", "says"),
    [
        (None, "no such program"),
        (b"text", "not a program for Android"),
        (ELF + (62).to_bytes(2, "little"), "is for 64-bit x86, and the phone runs arm64-v8a"),
        (ELF + (183).to_bytes(2, "little"), "the phone does not execute"),
    ],
)
def test_wrong_binary(binary: bytes | None, says: str, call: Call, pixel: Adbd, tmp_path: Path) -> None:
    if binary:
        (tmp_path / "other").write_bytes(binary)
    code, _, err = call("bench", "a.tflite", "--device", pixel.where, "--binary", "other", *QUICK)
    assert code == 3 and says in refused(err)


def test_noexec_storage(call: Call, pixel: Adbd) -> None:
    pixel.phone.noexec = True
    tool(pixel.phone.root, "chmod", "exit 0")
    code, _, err = call("bench", "a.tflite", "--device", pixel.where, *QUICK)
    assert code == 3 and "the phone does not execute" in refused(err) and "the storage may forbid it" in err


@pytest.mark.parametrize("room", [0, 3000])
def test_full_phone(room: int, call: Call, pixel: Adbd) -> None:
    if room:
        pixel.phone.disk = 1000  # seen only while writing
    else:
        tool(pixel.phone.root, "df", "echo '/dev/x 9 9 1 99% /data'")
    code, _, err = call("bench", "a.tflite", "--device", pixel.where, *QUICK)
    assert code == 3 and "no space left" in refused(err) and "free some space" in err


def test_model_that_cannot_be_loaded(call: Call, pixel: Adbd) -> None:
    files = ("a.tflite", "b.tflite", "c.tflite")
    code, out, err = call("bench", *files, "--device", pixel.where, *QUICK, "--threads", "1", "--json")
    assert code == 1 and "1 of 3 not measured" in refused(err) and "Failed to load model" in err
    assert [r["status"] for r in json.loads(out)["results"]] == ["ok", "failed", "ok"]


def test_phone_pulled_out(call: Call, pixel: Adbd, monkeypatch: pytest.MonkeyPatch) -> None:
    from android_bench.measure.phone import PhoneRunner

    measure = PhoneRunner.measure

    def pull_out(self: Any, protocol: Any) -> Any:
        if self._threads == 2:
            pixel.gone_s, pixel.cut_after = 1e9, 20
        return measure(self, protocol)

    monkeypatch.setattr(PhoneRunner, "measure", pull_out)
    where = ("--device", pixel.where, "--threads", "1,2", *QUICK)
    code, _, err = call("bench", "a.tflite", *where, "--save", "bench.json")
    assert code == 3 and "the phone is gone" in refused(err) and "the figures so far are kept" in err
    kept = json.loads(Path("bench.json").read_text())
    assert not kept["complete"] and [r["n"] for r in kept["results"]] == [5, 0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("a.tflite --threads 0,x", "--threads"),
        ("a.tflite --save results.pdf", "end the name with .json, .csv, .txt, .html"),
        ("a.tflite --save nowhere/b.json", "no such folder"),
        ("--zoo NoSuchNet*", "no network is called like 'NoSuchNet*'"),
        ("--compare a.tflite b.json", "cannot be compared"),
        ("--compare a.tflite", "takes two files, not 1"),
        ("a.tflite --compare b.json c.json", "takes two files, not 3"),
        ("--compare b.json c.json", "cannot read"),
        ("--compare a.tflite ./a.tflite", "compares two files, not 1"),
        ("--compare a.tflite c.tflite --zoo MobileNetV1", "no --zoo"),
        ("a.tflite --max-regress much", "not a share"),
    ],
)
def test_wrong_usage_measures_nothing(arguments: str, says: str, call: Call) -> None:
    code, out, err = call("bench", *arguments.split())
    assert code == 2 and says in refused(err) and out == ""


def test_saved_files_and_compare(call: Call, pixel: Adbd) -> None:
    saves = [x for end in ("json", "csv", "txt", "html") for x in ("--save", f"bench.{end}")]
    code, out, _ = call("bench", "a.tflite", "c.tflite", "--device", pixel.where, *QUICK, *saves)
    assert code == 0 and "Snapdragon 855" in out
    assert json.loads(Path("bench.json").read_text())["complete"]
    assert len(Path("bench.csv").read_text().splitlines()) == 5
    assert "latency in ms" in Path("bench.txt").read_text() and "<svg" in Path("bench.html").read_text()
    code, out, _ = call("bench", "--compare", "bench.json", "bench.json")
    assert code == 0 and out.count("not known") == 4
    code, out, _ = call("bench", "--compare", "bench.json", "bench.json", "--json")
    assert [p["ratio"] for p in json.loads(out)["pairs"]] == [1.0] * 4
    Path("text.json").write_text("text")
    code, _, err = call("bench", "--compare", "bench.json", "text.json")
    assert code == 2 and "not JSON" in refused(err)


def test_two_files_are_compared_by_turns(call: Call, pixel: Adbd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    where = ("--compare", "--device", pixel.where, "--threads", "1,2", *QUICK[:-1], "3", "--spacing", "0")
    code, out, err = call("bench", "a.tflite", "c.tflite", *where, "--save", "bench.json")
    assert code == 0 and "Is B faster than A?" in out and "not known" in out
    saved = json.loads(Path("bench.json").read_text())
    assert [(r["model"], r["threads"]) for r in saved["results"]] == [
        ("a.tflite", 1), ("c.tflite", 1), ("a.tflite", 2), ("c.tflite", 2),
    ]  # fmt: skip
    measured = [c.split("--graph=")[1].split()[0] for c in pixel.phone.commands if "--num_runs=5" in c]
    turn = measured[:2]
    assert len(set(turn)) == 2 and measured == 2 * turn + 2 * turn[::-1] + 2 * turn
    code, again, err = call("bench", "a.tflite", "c.tflite", *where, "--json")
    assert code == 0 and "12 of 12 rounds measured before" in err
    verdict = json.loads(again)
    assert verdict["schema"] == saved["compare"]["schema"] and verdict["pairs"] == saved["compare"]["pairs"]
    code, out, err = call("bench", "a.tflite", "b.tflite", *where)
    assert code == 1 and "2 of 4 not measured" in refused(err) and "Is B faster" not in out


def test_slower_than_the_baseline(call: Call, pixel: Adbd) -> None:
    where = ("a.tflite", "--device", pixel.where, "--threads", "1", *QUICK)
    assert call("bench", *where, "--save", "old.json")[0] == 0
    assert call("bench", *where, "--baseline", "old.json", "--fresh")[0] == 0
    (pixel.phone.path(FOLDER) / "behaviour").write_text("base=8800\n")
    code, out, err = call("bench", *where, "--baseline", "old.json", "--max-regress", "5%", "--fresh")
    assert code == 4 and "8.8 ms is 10.0% longer than the baseline's 8 ms" in refused(err) and "8.800" in out
    assert call("bench", *where, "--baseline", "old.json", "--max-regress", "15%")[0] == 0


def test_own_phone_by_name(call: Call, pixel: Adbd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    Path("devices.yaml").write_text(f"mine: {{serial: '{pixel.where}', soc: sd855, binary: tool}}\n")
    code, out, _ = call("bench", "a.tflite", "--device", "mine", *QUICK)
    assert code == 0 and "Google Pixel 4" in out
    code, out, _ = call("devices")
    assert code == 0 and f"{pixel.where} (mine)" in out and "Snapdragon 855" in out and " yes " in out
    Path("devices.yaml").write_text(f"mine: {{serial: '{pixel.where}', soc: sd888}}\n")
    code, _, err = call("bench", "a.tflite", "--device", "mine", *QUICK)
    assert code == 3 and "is a Snapdragon 855 (sd855), not a Snapdragon 888" in refused(err)


def test_what_was_measured_is_not_measured_again(call: Call, pixel: Adbd) -> None:
    where = ("--device", pixel.where, *QUICK, "--threads", "1")
    assert call("bench", ".", *where)[0] == 1
    time.sleep(1.1)  # the time of a session is known to the second
    code, out, err = call("bench", ".", *where, "--save", "b.html")
    assert code == 1 and "2 of 3 rounds measured before" in err
    said = "2 of 3 results were measured before, at "
    assert said in out and said in Path("b.html").read_text()
    code, _, err = call("bench", ".", *where, "--fresh")
    assert "measured before" not in err


def test_published_figures_stand_beside() -> None:
    names = ("MobileNetV3_large_x1_0_fp32", "MobileNetV3_large_x1_0_int8", "MobileNetV1", "model_fp32")
    rows: list[dict[str, Any]] = [{"model": f"{name}.tflite", "threads": 4} for name in names]
    add_published({"results": rows})
    assert [r.get("published_sd855_ms") for r in rows] == [6.84, None, 10.3, None]
    assert [r.get("network") for r in rows] == ["MobileNetV3_large_x1_0"] * 2 + ["MobileNetV1", None]
    assert rows[1]["top1"] == 0.753


def test_names_of_one_network_are_measured_once() -> None:
    chosen = choose(["MobileNetV3_large_x1_0*", "mobilenetv1"])
    assert chosen == ["MobileNetV3_large_x1_0", "MobileNetV1"]


def test_page_of_many_networks(tmp_path: Path) -> None:
    rows = [
        {"model": f"<net{i}>_{kind}.tflite", "threads": t, "status": "ok", "median_ms": (i + 1) / t, "bytes": 10**6 * i,
         "ci95_ms": [i / t, (i + 2) / t], "n": 90, "top1": 0.5 + 0.02 * i, "published_sd855_ms": 3.0, "why": ""}
        for i in range(9) for kind in ("fp32", "int8") for t in (1, 2)
    ]  # fmt: skip
    rows.append(
        {"model": "x.tflite", "threads": 1, "status": "failed", "why": "no <operator>", "median_ms": None}
    )
    device = {"name": "Pixel", "notes": ["not <certain>"]}
    document = {"device": device, "protocol": {"runs": 30}, "results": rows, "complete": False}
    page = write_bench(document, tmp_path / "b.html").read_text()
    assert page.count("<svg") == 3 and "published top-1, %" in page and "Interrupted" in page
    assert "<net" not in page and "no &lt;operator&gt;" in page and "3.00 ms" in page
    assert "not &lt;certain&gt;" in page


def test_zoo_is_converted_once_and_failures_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecls.console import Console
    from edgecls.workflow import zoo_files as module

    made: list[tuple[str, ...]] = []

    def convert(name: str, precisions: Any, folder: Path) -> module.Conversion:
        made.append((name, *precisions))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}_fp32.tflite").write_bytes(b"\0\0\0\0TFL3")
        return module.Conversion({"int8": "no such layer"})

    monkeypatch.setattr(module, "_convert", convert)
    for _ in range(2):
        files, failed = zoo_files(
            ["MobileNetV1", "GhostNet_x0_5"], ["fp32", "int8"], [1, 2], Console(quiet=True)
        )
        assert [f.name for f in files] == ["MobileNetV1_fp32.tflite", "GhostNet_x0_5_fp32.tflite"]
        assert [(r["model"], r["threads"], r["status"]) for r in failed][1] == (
            "MobileNetV1_int8.tflite",
            2,
            "failed",
        )
        assert failed[0]["why"] == "not converted: no such layer"
    assert made[2:] == [("MobileNetV1", "int8"), ("GhostNet_x0_5", "int8")]
    files, failed = zoo_files(["MobileNetV1"], [], [1], Console(quiet=True))
    assert [f.name for f in files] == ["MobileNetV1_fp32.tflite"] and failed == []  # int8 was not asked for


def test_the_zoo_for_real(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversion in a process of its own, then this computer; the second time all is known."""
    monkeypatch.setattr("android_bench.measure.session._foreign", lambda *_: "")  # whatever else runs here
    arguments = ("--zoo", "MobileNetV3_small_x0_35", "--device", "host", "--threads", "1", "--json", *QUICK)
    code, out, err = call("bench", *arguments)
    assert code == 0, err
    fp32, int8 = json.loads(out)["results"]
    assert (fp32["published_sd855_ms"], fp32["top1"]) == (2.23, 0.53) and int8[
        "network"
    ] == "MobileNetV3_small_x0_35"
    assert fp32["partitions"] == int8["partitions"] == 1 and int8["bytes"] < 0.5 * fp32["bytes"]
    code, again, err = call("bench", *arguments)
    assert (
        code == 0 and "2 of 2 rounds measured before" in err and json.loads(again)["results"] == [fp32, int8]
    )


def test_mlperf_asks_for_its_counts_and_times(call: Call, pixel: Adbd) -> None:
    where = ("--device", pixel.where, "--threads", "1", "--rounds", "1", "--protocol", "mlperf", "--json")
    code, out, _ = call("bench", "a.tflite", *where)
    document = json.loads(out)
    assert code == 0 and document["results"][0]["n"] == 1024
    assert (document["protocol"]["runs"], document["protocol"]["run_s"]) == (1024, 60.0)
    (command,) = (c for c in pixel.phone.commands if "--num_runs=1024" in c)
    assert "--min_secs=60" in command and "--max_secs=600" in command and "--warmup_runs=10" in command
