"""The gate against an earlier measurement."""

import io
import re
from typing import Any

import pytest

from android_bench import BenchUsageError
from android_bench.measure.baseline import Regression, check, compare, duel, parse_share
from android_bench.output.report import print_duel


def document(**medians: float) -> dict[str, Any]:
    rows = [
        {"model": name, "threads": 1, "median_ms": m, "ci95_ms": [m * 0.99, m * 1.01]}
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
    assert [(r["change"], r["sure"]) for r in rows] == [(0.04, True), (-0.2, True)]


def test_overlapping_intervals_are_said() -> None:
    with pytest.raises(Regression, match="intervals overlap"):
        check(document(a=10.1), document(a=10.0), 0.0)


def test_one_round_is_compared_without_an_interval() -> None:
    new, old = document(a=12.0), document(a=10.0)
    old["results"][0]["ci95_ms"] = None
    (row,) = compare(new, old)
    assert row["sure"] is None and row["change"] == pytest.approx(0.2)
    with pytest.raises(Regression, match="one round has no interval"):
        check(new, old, 0.05)


def test_what_cannot_be_compared() -> None:
    with pytest.raises(BenchUsageError, match="none of these"):
        compare(document(a=1.0), document(b=1.0))
    other = {**document(a=1.0), "device": {"cpu": "Snapdragon 888"}}
    with pytest.raises(BenchUsageError, match="another device"):
        compare(document(a=1.0), other)


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
    assert (pair["verdict"], pair["sure"]) == ("faster", 1.0) and pair["ratio"] == pytest.approx(
        8.1 / 10.1, abs=0.01
    )
    assert pair["ci95"][0] <= pair["ratio"] <= pair["ci95"][1] < 1 and result["notes"] == []
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
    assert (pair["ci95"], pair["sure"], pair["verdict"]) == (None, None, "no difference shown")
    assert result["notes"] == ["measured in one round only, which has no interval: m"]
    text = io.StringIO()
    print_duel(result, text)
    assert re.search(r"0\.80\d +- +(- +)?no difference shown", text.getvalue())


def test_an_interval_that_is_open_fits_the_table() -> None:
    result = duel(measured("m", *SLOW), measured("m", *FAST))
    result["pairs"][0]["ci95"] = [0.0, 1.6e304]
    text = io.StringIO()
    print_duel(result, text)
    assert "over 1000" in text.getvalue() and " m " in text.getvalue()
    assert max(map(len, text.getvalue().splitlines())) <= 80


def test_the_duel_as_text() -> None:
    text = io.StringIO()
    print_duel(duel(measured("fp32", *SLOW), measured("int8", *FAST, cpu="other")), text)
    assert (
        "fp32 / int8" in text.getvalue()
        and "faster" in text.getvalue()
        and "devices differ" in text.getvalue()
    )
