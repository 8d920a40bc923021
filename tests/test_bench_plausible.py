"""No figure that cannot be is ever "ok": in what programs print, and in every bench.json that is read."""

from __future__ import annotations

import copy
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from adbd import Adbd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from phone import QUICK
from played import Played, play, quiet

from android_bench import BenchUsageError
from android_bench.adb.link import FOLDER
from android_bench.measure.checks import round_problem
from android_bench.measure.protocol import Loaded, Protocol, Round
from android_bench.measure.session import Session
from android_bench.models import ModelFile
from android_bench.output.documents import read_json, to_json
from android_bench.output.parse import ParseError, Stat, parse
from android_bench.output.plausible import problem

DATA = Path(__file__).parent / "data" / "bench"
RUNNER = """edgecls runner 1
init_us 1234.500
first_us 900.000
warmup_us 2 810.000 800.000
runs_us 5 700.000 750.000 800.000 720.000 760.000
memory_kb init=2048 overall=3072 peak=10240
end 5
"""
TWIN = """
========================================
 BENCHMARK RESULTS
========================================
Model initialization:  2.31 ms
Warmup (first):        1.75 ms
Warmup (avg):          1.41 ms (5 runs)
Inference (avg):       1.33 ms (50 runs)
Inference (min):       1.20 ms
Inference (max):       1.61 ms
Inference (median):    1.31 ms
Inference (std):       0.09 ms
Inference (p5):        1.22 ms
Inference (p95):       1.55 ms
Throughput:            11.02 MB/s
Fully accelerated:     True
========================================
"""
OUTPUTS = {
    path.name[:2]: path.read_text() for path in sorted(DATA.glob("*.txt")) if not path.name.startswith("06")
} | {"runner": RUNNER, "twin": TWIN}
NUMBERS = {
    name: [m.span() for m in re.finditer(r"-?\d+(\.\d+)?(e[-+]?\d+)?", text)]
    for name, text in OUTPUTS.items()
}
WRONG = st.one_of(
    st.sampled_from(
        ["0", "-1", "nan", "inf", "-inf", "1e30", "-0.0", "1e-30", "", "0x10", "1_000", "١", "10" * 400]
    ),
    st.integers(-(10**12), 10**12).map(str),
    st.floats().map(repr),
)


def row_of(text: str) -> dict[str, Any]:
    """The result of a session whose device prints this output in each round, as ``PhoneRunner`` reads it."""

    class Printing(Played):
        def open(self, model: ModelFile, threads: int, seed: int) -> Any:
            class Runner:
                def load(self) -> Loaded:
                    out = parse(text)
                    return Loaded(out.init_ms, out.first_ms)

                def measure(self, protocol: Protocol) -> Round:
                    out = parse(text)
                    stat = None if out.samples_ms else out.runs
                    return Round(list(out.samples_ms), stat=stat, foreign_cores=0.0)

                def close(self) -> None:
                    pass

            return Runner()

    plan = Protocol(rounds=2, spacing_s=0.0, repeats=0)
    file = ModelFile(Path("m"), "m", "0" * 64, 1)
    document = json.loads(to_json(Session(Printing({}), [file], [1], plan).run()))
    (row,) = document["results"]
    return row


def assert_trustworthy(row: dict[str, Any]) -> None:
    """Written anew here, apart from the rules that are tested."""
    assert row["n"] >= 1 and row["init_ms"] >= 0 and row["first_ms"] > 0
    names = ("min_ms", "median_ms", "p90_ms", "p95_ms", "max_ms")
    times = [row[name] for name in names if row.get(name) is not None]
    assert all(0 < ms < math.inf for ms in times) and times == sorted(times)
    assert row["min_ms"] * 0.9999 - 0.01 <= row["mean_ms"] <= row["max_ms"] * 1.0001 + 0.01
    assert 0 <= row["std_ms"] <= row["max_ms"] - row["min_ms"] + 0.02
    assert row["ci95_ms"] is None or 0 <= row["ci95_ms"][0] <= row["median_ms"] <= row["ci95_ms"][1]
    for name in ("peak_mib", "peak_total_mib"):
        assert row[name] is None or 0 <= row[name] < math.inf


@pytest.mark.parametrize("figure", ["Warmup (first):        1.75", "Inference (min):       1.20"])
def test_less_than_a_nanosecond_is_no_time(figure: str) -> None:
    """It would be 0.0 in bench.json, which keeps nanoseconds."""
    assert figure in TWIN
    row = row_of(TWIN.replace(figure, figure[:-4] + "1e-30"))
    assert row["status"] == "failed" and "1e-30 is impossible" in row["why"]


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_that_is_whole_is_ok(name: str) -> None:
    row = row_of(OUTPUTS[name])
    assert row["status"] == "ok"
    assert_trustworthy(row)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_mutation_of_numbers_gives_a_wrong_row_that_is_ok(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(OUTPUTS)))
    text = OUTPUTS[name]
    places = data.draw(st.lists(st.sampled_from(NUMBERS[name]), min_size=1, max_size=3, unique=True))
    for begin, end in sorted(places, reverse=True):
        text = text[:begin] + data.draw(WRONG) + text[end:]
    row = row_of(text)
    if row["status"] == "failed":
        assert row["why"] and "\n" not in row["why"] and len(row["why"]) < 500
    else:
        assert_trustworthy(row)


GOOD = "count=50 first=1002 curr=1001 min=990 max=1020 avg=1001.5 std=4 p5=992 median=1001 p95=1010"


@pytest.mark.parametrize(
    ("was", "now", "says"),
    [
        ("count=50", "count=-50", "count=-50 is impossible"),
        ("count=50", "count=1e30", "count=10^30 is impossible"),
        ("count=50", "count=50.5", "torn"),
        ("median=1001", "median=1e9", "median_ms=1e+06 is above p95_ms=1.01"),
        ("median=1001", "median=-5", "median_ms=-0.005 is impossible"),
        ("median=1001", "median=nan", "median is no number"),
        ("median=1001", "median=993", "differ by more than std_ms=0.004"),
        ("min=990", "min=0", "min_ms=0 is impossible"),
        ("min=990", "min=1e-30", "min_ms=0 is impossible"),
        ("p5=992", "p5=980", "min_ms=0.99 is above p5_ms=0.98"),
        ("avg=1001.5", "avg=2001.5", "mean_ms=2.0015 is not between"),
        ("std=4", "std=400", "std_ms=0.4 is more than runs from 0.99 to 1.02 ms can differ"),
        ("std=4", "std=-4", "std_ms=-0.004 is impossible"),
        ("max=1020", "max=1020 max=1021", "torn"),
    ],
)
def test_the_line_that_is_wrong_is_named(was: str, now: str, says: str) -> None:
    end = "Inference timings in us: Init: 1500, First inference: 1002, Warmup (avg): 1001.5, Inference (avg): 1001.5\n"
    assert parse(f"{GOOD}\n{GOOD}\n{end}").runs.median_ms == 1.001
    with pytest.raises(ParseError, match=re.escape(says)) as error:
        parse(f"{GOOD}\n{GOOD.replace(was, now)}\n{end}")
    assert error.value.where == GOOD.replace(was, now)


def test_the_other_lines_are_checked_too() -> None:
    end = "Inference timings in us: Init: {}, First inference: 1002, Warmup (avg): 1001.5, Inference (avg): 1001.5\n"
    for init in ("-1500", "1e30"):
        with pytest.raises(ParseError, match=r"init_ms=.* is impossible"):
            parse(f"{GOOD}\n{GOOD}\n{end.format(init)}")
    memory = "Memory footprint delta from the start of the tool (MB): init=-3 overall=1e30\n"
    said = parse(f"{GOOD}\n{GOOD}\n{end.format(1500)}{memory}")
    assert (said.init_delta_mib, said.overall_delta_mib) == (
        None,
        None,
    ) and "memory that cannot be" in said.notes[0]
    for was, now in (("700.000", "0.000"), ("700.000", "-700.000"), ("first_us 900", "first_us -900")):
        with pytest.raises(ParseError, match="cannot be"):
            parse(RUNNER.replace(was, now))


def test_rounds_that_cannot_be_fail_whatever_the_device() -> None:
    for bad in (0.0, -1.0, math.nan, math.inf):
        (row,) = play({"m": [quiet(5.0), Round([5.0, bad, 5.0]), quiet(5.0)]})[0]["results"]
        assert row["status"] == "failed" and "figures that cannot be" in row["why"]
    stat = Stat(10**6, 5.0, 4.0, 6.0, 5.0, 0.1, 4.5, 5.0, 5.5)
    assert round_problem(Round([], stat=stat)) == ""
    assert "more than the 150 s that they had" in round_problem(Round([], stat=stat), Protocol())
    assert round_problem(Round([])) == "no runs"


def document() -> dict[str, Any]:
    stat = Stat(30, 5.0, 4.0, 6.0, 5.0, 0.1, 4.5, 5.0, 5.5)
    samples = [quiet(5.0), Round([5.0, 5.1, 5.2], foreign_cores=0.0), quiet(5.1)]
    return play({"a": samples, "b": [Round([], stat=stat, foreign_cores=0.0)] * 3})[0]


def numbers(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [found for key, item in items for found in numbers(item, (*path, key))]
    return [path] if isinstance(value, int | float) and not isinstance(value, bool) else []


WHOLE = document()
PLACES = [path for path in numbers(WHOLE["results"], ("results",)) if "bytes" not in path]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(PLACES),
    new=st.one_of(
        st.sampled_from([0, -1, 1e9, -5.0, math.nan, math.inf, 10**400, None, "5", True, [], {}]), st.floats()
    ),
)
def test_no_mutation_of_a_file_is_read_as_a_wrong_figure(
    path: tuple[Any, ...], new: Any, tmp_path: Path
) -> None:
    changed = copy.deepcopy(WHOLE)
    place: Any = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = new
    file = tmp_path / "bench.json"
    file.write_text(json.dumps(changed))
    try:
        rows = read_json(file)["results"]
    except BenchUsageError as error:
        assert str(file) in str(error) and "\n" not in str(error)
        return
    for row in rows:
        figures = ("min_ms", "median_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms")
        times = [row[name] for name in figures if row.get(name) is not None]
        assert all(0 < ms < math.inf for ms in times) and times == sorted(times) and row["median_ms"] in times
        assert row["n"] is None or row["n"] >= 1
        for one in row["rounds"]:
            assert all(0 < ms < math.inf for ms in [one["median_ms"], *one["samples_ms"]])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[]", "schema is None"),
        ("[" * 100_000, "not JSON"),
        ('{"schema": "android_bench/2"}', "no results of a device"),
        ('{"schema": "android_bench/1", "device": {}, "results": [7]}', "result 1: no model"),
        (
            '{"schema": "android_bench/1", "device": {}, "results": [{"model": "m"}]}',
            "threads=None is impossible",
        ),
    ],
)
def test_files_that_are_no_measurement(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text(content)
    with pytest.raises(BenchUsageError, match=re.escape(says)):
        read_json(tmp_path)


def test_figures_that_can_be() -> None:
    assert problem({}) == ""
    assert problem({"count": 1, "min_ms": 2.5, "max_ms": 2.5, "mean_ms": 2.5, "std_ms": 0.0}) == ""
    # One of a thousand runs took twice the time: the deviation is the greatest that there can be.
    assert problem({"n": 1000, "min_ms": 1.0, "max_ms": 2.0, "mean_ms": 1.001, "std_ms": 0.031623}) == ""
    assert "can differ" in problem(
        {"n": 1000, "min_ms": 1.0, "max_ms": 2.0, "mean_ms": 1.001, "std_ms": 0.06}
    )


@pytest.mark.usefixtures("alone")
def test_the_command_neither_passes_nor_compares_figures_that_cannot_be(call: Any, pixel: Adbd) -> None:
    where = ("--device", pixel.where, *QUICK)
    assert call("bench", "a.tflite", *where, "--save", "good.json")[0] == 0
    good = json.loads(Path("good.json").read_text())
    for median in (-1.001, 0, 1e9):
        good["results"][0]["median_ms"] = median
        Path("bad.json").write_text(json.dumps(good))
        for command in (
            ("a.tflite", *where, "--baseline", "bad.json"),
            ("--compare", "good.json", "bad.json"),
        ):
            code, _, err = call("bench", *command)
            assert code == 2 and "figures that cannot be: a.tflite, 1 thread: median_ms=" in err
            assert "Traceback" not in err
    pixel.phone.path(FOLDER).mkdir(parents=True, exist_ok=True)
    (pixel.phone.path(FOLDER) / "behaviour").write_text("base=-8000\n")
    code, _, err = call("bench", "a.tflite", *where, "--fresh", "--max-ms", "0.5")
    assert code == 1 and "min_ms=-8" in err.replace("first_ms", "min_ms") and "count=" in err
