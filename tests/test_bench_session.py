"""What a session makes of the rounds of a played device."""

import csv
import io
import re
import time
from pathlib import Path

import pytest
from played import BUSY, WAITING, Played, play, quiet

from android_bench import BenchError, DeviceMissing, Interrupted
from android_bench.measure.host import HostBackend
from android_bench.measure.protocol import Protocol, Round
from android_bench.measure.session import Session, _utc, judge
from android_bench.models import ModelFile
from android_bench.output.documents import to_csv, to_text


def test_quiet_rounds_are_used() -> None:
    document, backend = play({"m": [quiet(5.0), quiet(5.1), quiet(5.2)]})
    (result,) = document["results"]
    assert (result["status"], result["why"], result["n"], result["median_ms"]) == ("ok", "", 15, 5.1)
    assert backend.settled == backend.open_now == 0


def test_rounds_are_spread_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(time, "monotonic", lambda: 100.0 + sum(slept))
    play({"m": [quiet(5.0)] * 3, "n": [quiet(5.0)] * 3}, spacing_s=6.0)
    assert slept == [0.0, 6.0, 6.0]
    slept.clear()
    play({"m": [BenchError("torn")]}, spacing_s=6.0)
    assert sum(slept) == 0, "nothing is left to measure"


@pytest.mark.parametrize("bad", [BUSY, WAITING, quiet(6.0), quiet(4.0)])
def test_disturbed_round_is_measured_again(bad: Round) -> None:
    document, backend = play({"m": [quiet(5.0), bad, quiet(5.1), quiet(5.2)]})
    (result,) = document["results"]
    assert result["status"] == "ok" and "measured again" in result["why"] and backend.settled == 1
    assert [r["used"] for r in result["rounds"]] == [True, False, True, True]
    assert result["median_ms"] == 5.1 and result["rounds"][1]["why"]


@pytest.mark.parametrize("bad", [BUSY, WAITING])
def test_lasting_disturbance_is_unsure(bad: Round) -> None:
    document, backend = play({"m": [bad] * 6})
    (result,) = document["results"]
    assert (
        result["status"] == "unsure"
        and "6 of 6 rounds" in result["why"]
        and "other programs" in result["why"]
    )
    assert result["n"] == 30 and backend.settled == 3  # shown, and marked


def test_two_clean_rounds_of_three_are_unsure_and_the_figures_theirs() -> None:
    (result,) = play({"m": [quiet(5.0), quiet(5.0), *[BUSY] * 4]})[0]["results"]
    assert result["status"] == "unsure" and result["n"] == 10


@pytest.mark.parametrize(
    "medians", [(5, 6, 7, 5, 6, 7), (5, 6, 6, 5, 5, 6), (5, 5, 6, 6, 6, 5), (5, 9, 7, 4, 6, 3)]
)
def test_repeating_never_makes_rounds_agree_that_do_not(medians: tuple[float, ...]) -> None:
    (result,) = play({"m": [quiet(m) for m in medians]})[0]["results"]
    assert result["status"] == "unsure" and re.search(
        r"its median is \d+% (above|below) the others'", result["why"]
    )


def test_no_more_repeats_where_the_device_does_not_settle() -> None:
    backend = Played({"m": [BUSY] * 4})
    backend.settles = False
    document = Session(
        backend, [ModelFile(Path("m"), "m", "0" * 64, 1)], [1], Protocol(rounds=3, spacing_s=0.0)
    ).run()
    assert len(document["results"][0]["rounds"]) == 4 and document["results"][0]["status"] == "unsure"


def test_unknown_load_is_said() -> None:
    (result,) = play({"m": [Round([5.0] * 5)] * 3})[0]["results"]
    assert result["status"] == "ok" and "not known" in result["why"]


def test_waiting_for_own_threads_is_no_disturbance() -> None:
    assert play({"m": [WAITING] * 3}, threads=4)[0]["results"][0]["status"] == "ok"


def test_failure_in_mid_run_leaves_the_others() -> None:
    document, backend = play({"bad": [quiet(5.0), BenchError("gone")], "good": [quiet(5.0)] * 3})
    assert [r["status"] for r in document["results"]] == ["failed", "ok"]
    assert document["results"][0]["why"] == "gone" and backend.open_now == 0


def test_interrupt_keeps_what_there_is() -> None:
    with pytest.raises(Interrupted) as stop:
        play({"a": [quiet(5.0), quiet(5.0)], "b": [quiet(5.0), KeyboardInterrupt()]})
    assert stop.value.exit_code == 130
    assert [r["status"] for r in stop.value.document["results"]] == ["unsure", "unsure"]
    assert not stop.value.document["complete"]


def test_missing_runtime_stops_all() -> None:
    with pytest.raises(DeviceMissing):
        play({"a": [DeviceMissing("no TFLite runtime")]})


def test_many_cases_are_measured_in_groups() -> None:
    document, _ = play({f"m{i}": [quiet(5.0)] * 3 for i in range(20)})
    assert len(document["results"]) == 20 and document["protocol"]["interleaved"] == 8


def test_judge_needs_a_clean_round_to_compare_with() -> None:
    assert judge([], 1, Protocol(), HostBackend()) == []
    assert all(judge([BUSY, BUSY], 1, Protocol(), Played({})))


def test_one_round_has_no_interval_anywhere(tmp_path: Path) -> None:
    from android_bench.output.report import print_table
    from edgecls.report import write_bench

    document, _ = play({"a": [quiet(5.0)]}, rounds=1, repeats=0)
    document["device"]["cpu"] = None
    (result,) = document["results"]
    assert (result["status"], result["ci95_ms"]) == ("ok", None) and "one round has no interval" in result[
        "why"
    ]
    (row,) = csv.DictReader(io.StringIO(to_csv(document)))
    assert (row["ci_low_ms"], row["ci_high_ms"]) == ("", "") and "min = 5.0" in to_text(document)
    text = io.StringIO()
    print_table(document, text)
    assert "a, 1 thread, ok: one round has no interval" in text.getvalue()
    assert "5.00 ms" in write_bench(document, tmp_path / "b.html").read_text()


def test_sessions_that_begin_in_one_second_have_different_names() -> None:
    names = []
    for _ in range(2):
        names.append(_utc())
        time.sleep(0.002)
    assert names[0] < names[1]
