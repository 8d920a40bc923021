"""Statistics of latencies against numpy and scipy, and intervals against the truth they claim to cover."""

import json

import numpy as np
import pytest
import scipy.stats

from android_bench.measure.stats import (
    bootstrap_medians,
    compare,
    summarise,
    summarise_stats,
    t_cdf,
    t_quantile,
)
from android_bench.output.parse import Stat


def rounds(seed: int, count: int = 3, runs: int = 60, between: float = 0.02, centre: float = 5.0):
    rng = np.random.default_rng(seed)
    return [centre * (1 + between * rng.normal()) + rng.gamma(2, 0.05, runs) for _ in range(count)]


def test_figures_equal_numpy_and_scipy() -> None:
    data = rounds(0)
    runs = np.concatenate(data)
    got = summarise(data)
    wanted = {
        "median_ms": np.median(runs), "p90_ms": np.quantile(runs, 0.9), "p99_ms": np.quantile(runs, 0.99),
        "min_ms": runs.min(), "max_ms": runs.max(), "mean_ms": scipy.stats.tmean(runs),
        "std_ms": scipy.stats.tstd(runs),
    }  # fmt: skip
    for name, value in wanted.items():
        assert got[name] == pytest.approx(value, abs=1e-6), name
    assert got["n"] == 180
    assert got["ci95_ms"][0] <= got["median_ms"] <= got["ci95_ms"][1]


@pytest.mark.parametrize("runs", [30, 101, 2000])
def test_interval_of_one_round_equals_scipy(runs: int) -> None:
    data = np.random.default_rng(runs).lognormal(1, 0.3, runs)
    theirs = scipy.stats.bootstrap(
        (data,), np.median, n_resamples=4000, method="percentile", rng=np.random.default_rng(0)
    )
    low, high = np.percentile(bootstrap_medians([data], resamples=4000), [2.5, 97.5])
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert low == pytest.approx(theirs.confidence_interval.low, abs=0.15 * width)
    assert high == pytest.approx(theirs.confidence_interval.high, abs=0.15 * width)


@pytest.mark.parametrize("count", [2, 3, 5, 12])
def test_interval_covers_the_truth_when_rounds_differ(count: int) -> None:
    truth = 5.0 + scipy.stats.gamma(2, scale=0.05).median()
    hits = 0
    for seed in range(100):
        low, high = summarise(rounds(seed, count, between=0.02))["ci95_ms"]
        hits += low <= truth <= high
    assert hits / 100 >= 0.90


@pytest.mark.parametrize("count", [3, 5, 8])
def test_interval_covers_the_median_of_another_session(count: int) -> None:
    hits = 0
    for seed in range(300):  # flicker noise: another session is off by as much as one round is
        low, high = summarise(rounds(2 * seed, count))["ci95_ms"]
        (again,) = rounds(2 * seed + 1, 1)
        hits += low <= np.median(again) <= high
    assert hits / 300 >= 0.93


def test_same_seed_same_interval() -> None:
    assert summarise(rounds(1), seed=3) == summarise(rounds(1), seed=3)


def test_edges() -> None:
    alone = summarise([[2.0]])
    assert (alone["median_ms"], alone["std_ms"], alone["n"], alone["ci95_ms"]) == (2.0, 0.0, 1, None)
    assert summarise([[1.0] * 5, [1.0] * 5])["ci95_ms"] is None, "the clock is too coarse for an interval"
    assert summarise([[0.1, 0.1], [9.0, 9.0]])["ci95_ms"][0] >= 0
    for bad in ([], [[]], [[1.0, float("nan")]]):
        with pytest.raises(ValueError):
            summarise(bad)


def test_one_round_has_no_interval() -> None:
    """Within a round the runs are nearly alike: five rounds of this device differ by 28 %, one looks sure to 0.02 %."""
    rng = np.random.default_rng(0)
    five = [centre + 0.001 * rng.random(1000) for centre in (4.0, 4.4, 5.0, 5.2, 5.6)]
    assert summarise(five[:1])["ci95_ms"] is None
    low, high = summarise(five)["ci95_ms"]
    assert high - low > 0.2 * 5.0
    (stat,) = [Stat(30, *[5.0] * 4, 0.1)]
    assert summarise_stats([stat])["ci95_ms"] is None
    assert summarise_stats([stat, stat])["ci95_ms"] is None


@pytest.mark.parametrize("df", [1, 2, 3, 4, 7, 10, 29, 30, 400])
def test_student_equals_scipy(df: int) -> None:
    for t in (-3.0, -0.5, 0.0, 0.3, 2.0, 9.0):
        assert t_cdf(t, df) == pytest.approx(scipy.stats.t.cdf(t, df), abs=1e-9)
    for share in (0.9, 0.975, 0.995, 0.99999):
        assert t_quantile(share, df) == pytest.approx(scipy.stats.t.ppf(share, df), rel=1e-6)


def test_without_an_interval_nothing_is_known() -> None:
    slow, fast = rounds(0, between=0.002), [0.5 * r for r in rounds(1, between=0.002)]
    coarse = [[5.0] * 30] * 3
    for a, b in ((slow[:1], fast), (slow, fast[:1]), (slow[:1], fast[:1]), (slow, coarse), (coarse, coarse)):
        for by_turns in {False, len(a) == len(b)}:
            result = compare(a, b, by_turns=by_turns)
            assert (result["ci95"], result["sure"], result["verdict"]) == (None, None, "not known")
    assert compare(slow, fast[:1])["ratio"] == pytest.approx(0.5, abs=0.02)


def test_compare() -> None:
    slow, fast = rounds(0, between=0.002), [0.8 * r for r in rounds(1, between=0.002)]
    for by_turns in (False, True):
        result = compare(slow, fast, by_turns=by_turns)
        assert result["verdict"] == "faster"
        assert result["ratio"] == pytest.approx(0.8, abs=0.01)
        assert result["ci95"][0] <= 0.8 <= result["ci95"][1]
        assert result["sure"] > 0.99
        assert compare(fast, slow, by_turns=by_turns)["verdict"] == "slower"
    assert compare(rounds(3), rounds(4))["verdict"] == "no difference shown"


@pytest.mark.parametrize("by_turns", [False, True])
def test_the_interval_of_a_ratio_equals_scipy(by_turns: bool) -> None:
    a, b = rounds(5, 6), rounds(6, 6)
    x, y = ([np.log(np.median(r)) for r in side] for side in (a, b))
    theirs = scipy.stats.ttest_rel(y, x) if by_turns else scipy.stats.ttest_ind(y, x, equal_var=False)
    low, high = theirs.confidence_interval(0.99)
    # Welch's degrees of freedom are rounded down here.
    wider = (
        1.0 if by_turns else scipy.stats.t.ppf(0.995, int(theirs.df)) / scipy.stats.t.ppf(0.995, theirs.df)
    )
    got = np.log(compare(a, b, by_turns=by_turns)["ci95"])
    assert got[1] - got[0] == pytest.approx(wider * (high - low), rel=1e-4)
    assert got.mean() == pytest.approx((low + high) / 2, abs=1e-5)


def test_by_turns_what_slows_both_is_gone() -> None:
    a = rounds(7, 5, between=0.1)
    b = [1.03 * r for r in a]
    assert compare(a, b, by_turns=True)["verdict"] == "slower"
    assert compare(a, b)["verdict"] == "no difference shown"
    with pytest.raises(ValueError, match="pairs"):
        compare(a, b[1:], by_turns=True)


def test_drift_between_sessions_makes_the_interval_wider() -> None:
    a, b = rounds(8, 5, between=0.001), [1.05 * r for r in rounds(9, 5, between=0.001)]
    assert compare(a, b)["verdict"] == "slower"
    assert compare(a, b, drift=0.04)["verdict"] == "no difference shown"
    few, many = (compare(a, b, drift=0.04, drift_df=df)["ci95"] for df in (4, 100))
    assert few[0] < many[0] < 1 < many[1] < few[1]


def test_a_coarse_clock_makes_the_interval_wider() -> None:
    """Ticks of 1 ms: 8 or 9 may both be 8.5, however alike the rounds are."""
    a, b = [[8.0, 8.0, 8.0, 9.0]] * 5, [[9.0, 9.0, 9.0, 8.0]] * 5
    assert compare(a, b, by_turns=True)["verdict"] == "no difference shown"
    low, high = summarise(a)["ci95_ms"]
    assert low <= 7.0 and high >= 9.0


@pytest.mark.filterwarnings("error")
def test_open_ends_are_said_and_nothing_is_nan() -> None:
    noisy = [[1e-6], [1.0], [1e6]]
    for by_turns in (False, True):
        result = compare(noisy, noisy[::-1], by_turns=by_turns)
        assert result["ci95"] == [None, None] and result["verdict"] == "no difference shown"
    json.dumps([result, summarise(noisy), compare(noisy, noisy)], allow_nan=False)
    for bad in (0.0, -1.0, float("inf")):
        with pytest.raises(ValueError):
            compare([[bad], [1.0]], noisy)


def test_compare_rarely_sees_a_difference_where_there_is_none() -> None:
    for by_turns in (False, True):
        found = [compare(rounds(2 * s), rounds(2 * s + 1), by_turns=by_turns) for s in range(300)]
        assert [pair["verdict"] for pair in found].count("no difference shown") >= 0.97 * 300
