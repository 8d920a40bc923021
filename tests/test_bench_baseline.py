"""The gate against an earlier measurement."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from android_bench import BenchUsageError
from android_bench.measure import history
from android_bench.measure.baseline import Regression, check, compare, duel, parse_share
from android_bench.output.report import print_duel

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path))
    return tmp_path


def document(**medians: float) -> dict[str, Any]:
    rows = [
        {
            "model": name,
            "threads": 1,
            "median_ms": m,
            "rounds": [
                {"used": True, "median_ms": share * m, "samples_ms": []} for share in (0.999, 1.0, 1.001)
            ],
        }
        for name, m in medians.items()
    ]
    return {"device": {"cpu": "Snapdragon 855"}, "results": rows}


def test_slower_is_refused_and_the_worst_is_named() -> None:
    with pytest.raises(
        Regression, match=r"12 ms is 20\.0% longer than the baseline's 10 ms.*\(b, 1 thread\)"
    ) as error:
        check(document(a=10.6, b=12.0, new=1.0), document(a=10.0, b=10.0, gone=5.0), 0.05)
    assert error.value.exit_code == 4


def test_as_fast_or_faster_passes() -> None:
    rows = check(document(a=10.4, b=8.0), document(a=10.0, b=10.0), 0.05)
    assert [(r["change"], r["verdict"]) for r in rows] == [(0.04, "no difference shown"), (-0.2, "faster")]


def test_overlapping_intervals_are_said() -> None:
    with pytest.raises(Regression, match="intervals overlap"):
        check(document(a=10.1), document(a=10.0), 0.0)


def test_one_round_is_compared_without_an_interval() -> None:
    new, old = document(a=12.0), document(a=10.0)
    del old["results"][0]["rounds"][1:]
    (row,) = compare(new, old)
    assert (row["sure"], row["verdict"]) == (None, "not known") and row["change"] == pytest.approx(0.2)
    with pytest.raises(Regression, match="one round has no interval"):
        check(new, old, 0.05)


def test_what_cannot_be_compared() -> None:
    with pytest.raises(BenchUsageError, match="none of these"):
        compare(document(a=1.0), document(b=1.0))
    other = {**document(a=1.0), "device": {"cpu": "Snapdragon 888"}}
    with pytest.raises(BenchUsageError, match="another device"):
        compare(document(a=1.0), other)
    for median in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(BenchUsageError, match="a median of"):
            compare(document(a=1.0), document(a=median))


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.1", 0.1), (" 2.5 % ", 0.025), ("0%", 0.0)])
def test_share(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "5", "-1%", "five", "5%%", "nan"])
def test_not_a_share(text: str) -> None:
    with pytest.raises(BenchUsageError):
        parse_share(text)


def measured(name: str, *rounds: list[float], threads: int = 1, status: str = "ok", cpu: str = "chip") -> Any:
    rows = [{"used": True, "median_ms": sorted(r)[len(r) // 2], "samples_ms": r} for r in rounds]
    median = sorted(x for r in rounds for x in r)[len(rounds[0]) * len(rounds) // 2]
    result = {"model": name, "threads": threads, "median_ms": median, "status": status, "rounds": rows}
    return {"device": {"name": "phone", "cpu": cpu}, "started": "2026-01-01", "results": [result]}


SLOW = [[10.0 + 0.01 * i for i in range(20)]] * 3
FAST = [[8.0 + 0.01 * i for i in range(20)]] * 3


def test_a_duel_says_by_how_much_and_how_sure() -> None:
    result = duel(measured("m", *SLOW), measured("m", *FAST))
    (pair,) = result["pairs"]
    assert pair["verdict"] == "faster" and pair["sure"] > 0.999
    assert pair["ratio"] == pytest.approx(8.1 / 10.1, abs=0.01)
    assert pair["ci95"][0] <= pair["ratio"] <= pair["ci95"][1] < 1
    assert (pair["by_turns"], pair["drift"]) == (False, 0.04)
    (note,) = result["notes"]
    assert "not measured by turns" in note and "assumed to differ by 4.0 %" in note
    assert duel(measured("m", *FAST), measured("m", *SLOW))["pairs"][0]["verdict"] == "slower"
    same = duel(measured("m", *SLOW), measured("m", *SLOW))["pairs"][0]
    assert same["verdict"] == "no difference shown" and same["ratio"] == 1.0


def test_a_duel_of_rounds_without_single_runs() -> None:
    """Phones tell medians alone: each round is one observation, so the interval is wider."""
    slow, fast = measured("m", *SLOW), measured("m", *FAST)
    for document, shift in ((slow, 0.1), (fast, -0.1)):
        for index, row in enumerate(document["results"][0]["rounds"]):
            row.update(samples_ms=[], median_ms=row["median_ms"] + shift * index)
    (pair,) = duel(slow, fast)["pairs"]
    assert pair["verdict"] == "faster" and pair["ci95"][1] - pair["ci95"][0] > 0.1


def test_a_duel_of_two_files_and_its_doubts() -> None:
    result = duel(measured("fp32", *SLOW), measured("int8", *FAST, status="unsure", cpu="other"))
    assert result["pairs"][0]["model"] == "fp32 / int8"
    assert [note.split(":")[0] for note in result["notes"]] == [
        "the devices differ",
        "not measured by turns in one session",
        "marked unsure when they were measured",
    ]
    with pytest.raises(BenchUsageError, match="in common"):
        duel(measured("m", *SLOW), measured("m", *FAST, threads=2))
    failed = measured("m", *SLOW)
    failed["results"][0]["status"] = "failed"
    with pytest.raises(BenchUsageError, match="in common"):
        duel(failed, measured("m", *SLOW))


def test_a_duel_with_a_single_round() -> None:
    result = duel(measured("m", SLOW[0]), measured("m", *FAST))
    (pair,) = result["pairs"]
    assert (pair["ci95"], pair["sure"], pair["verdict"]) == (None, None, "not known")
    assert result["notes"][1].startswith("no verdict from a single round")
    text = io.StringIO()
    print_duel(result, text)
    assert re.search(r"0\.80\d +- +(- +)?not known", text.getvalue())


def test_an_interval_that_is_open_fits_the_table() -> None:
    wild = measured("m", [1e-3] * 3, [1.0] * 3, [1e3] * 3)
    result = duel(wild, wild)
    assert result["pairs"][0]["ci95"] == [None, None]
    assert result["notes"][-1] == "rounds differ so much that the interval is open: m"
    text = io.StringIO()
    print_duel(result, text)
    assert "open - open" in text.getvalue() and " m " in text.getvalue()
    table = text.getvalue()[: text.getvalue().index("not measured by turns")]
    assert max(map(len, table.splitlines())) <= 80


def test_the_duel_as_text() -> None:
    text = io.StringIO()
    print_duel(duel(measured("fp32", *SLOW), measured("int8", *FAST, cpu="other")), text)
    assert (
        "fp32 / int8" in text.getvalue()
        and "faster" in text.getvalue()
        and "devices differ" in text.getvalue()
    )


def session(number: int, slow: float, **models: float) -> Any:
    """Three rounds of each model, by turns, on a phone that is slower by the factor ``slow``."""
    results = []
    for name, ms in models.items():
        rounds = [
            {"used": True, "median_ms": slow * drift * noise * ms, "samples_ms": []}
            | {"session": f"2026-01-{number:02}", "turn": turn}
            for turn, (drift, noise) in enumerate(
                ((1.0, 1.001), (1.05, 1.0), (1.1, 0.9995 - 0.0005 * (name == "a")))
            )
        ]
        median = rounds[1]["median_ms"]
        about = {"sha256": name, "threads": 1, "status": "ok", "median_ms": median}
        results.append({"model": name, **about, "rounds": rounds})
    device = {"name": "phone", "cpu": "chip"}
    return {"device": device, "started": f"2026-01-{number:02}", "results": results}


def part(document: Any, model: str) -> Any:
    return {**document, "results": [r for r in document["results"] if r["model"] == model]}


def test_models_of_one_session_are_compared_turn_by_turn() -> None:
    document = session(1, 1.0, a=10.0, b=9.5, c=10.0)
    for other, verdict in (("b", "faster"), ("c", "no difference shown")):
        result = duel(part(document, "a"), part(document, other))
        (pair,) = result["pairs"]
        assert (pair["by_turns"], pair["drift"], pair["verdict"]) == (True, None, verdict)
        assert result["notes"] == []
    later = session(2, 1.0, b=9.5)
    (pair,) = duel(part(document, "a"), later)["pairs"]
    assert (pair["by_turns"], pair["verdict"]) == (False, "no difference shown")


def test_models_that_took_no_turns() -> None:
    document = session(1, 1.0, a=10.0, b=9.5)
    for r in document["results"][0]["rounds"]:
        r["session"] = "2025-12-01"  # kept from earlier
    result = duel(part(document, "a"), part(document, "b"))
    assert result["pairs"][0]["by_turns"] is False and "not measured by turns" in result["notes"][0]
    for r in document["results"][0]["rounds"]:
        del r["turn"]  # of an older version
    assert duel(part(document, "a"), part(document, "b"))["pairs"][0]["by_turns"] is False


def test_rounds_without_a_partner_are_left_out() -> None:
    document = session(1, 1.0, a=10.0, b=9.5)
    for row, index in zip(document["results"], (0, 1), strict=True):
        row["rounds"][index]["used"] = False
        row["rounds"].append(row["rounds"][2] | {"median_ms": 30.0, "turn": 7 + index})  # again, alone
    (pair,) = duel(part(document, "a"), part(document, "b"))["pairs"]
    assert (pair["by_turns"], pair["verdict"]) == (True, "not known")
    assert pair["ratio"] == pytest.approx(0.95, abs=0.01)


def test_the_interval_is_as_wide_as_the_devices_own_sessions_differ(cache: Path) -> None:
    for number, slow in enumerate((1.0, 1.1, 0.9, 1.05, 0.95, 1.0), 1):
        history.remember(session(number, slow, a=10.0, b=20.0))
    drift = history.drift({"name": "phone", "cpu": "chip"})
    wanted = np.log([1.0, 1.1, 0.9, 1.05, 0.95, 1.0]).std(ddof=1)
    assert drift.std == pytest.approx(wanted) and drift.df == 10
    one, two = session(7, 1.0, a=10.0), session(8, 1.0, a=10.5)
    (pair,) = duel(one, two)["pairs"]
    assert pair["drift"] == pytest.approx(wanted, abs=1e-6)
    assert "repeated sessions on this device differ by 7." in duel(one, two)["notes"][0]
    assert history.drift({"name": "another", "cpu": "chip"}) == history.Drift()
    for number in range(1, 40):
        history.remember(session(number, 1.0, a=10.0, b=20.0) | {"device": {"name": "steady"}})
    (steady,) = duel(one | {"device": {"name": "steady"}}, two | {"device": {"name": "steady"}})["pairs"]
    assert steady["ci95"][1] < pair["ci95"][1] and steady["drift"] == 0


def test_a_history_that_is_torn_or_false_changes_nothing(cache: Path) -> None:
    document = session(1, 1.0, a=10.0)
    history.remember(document)
    (file,) = (cache / "sessions").iterdir()
    for bad in ('{"started": "2026", "medi', "7", '{"started": "x", "medians": {"k": -1}}', "\0"):
        with file.open("a") as lines:
            lines.write(bad + "\n")
    history.remember(session(2, 1.0, a=10.0))
    assert len(list(history._sessions(document["device"]))) == 2
    file.write_bytes(b"\xff")
    assert history.drift(document["device"]) == history.Drift()
    file.unlink()
    file.mkdir()
    history.remember(document)
    assert history.drift(document["device"]) == history.Drift()
