"""The gate against an earlier measurement."""

from typing import Any

import pytest

from android_bench import BenchUsageError
from android_bench.baseline import Regression, check, compare, parse_share


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
