"""Statistics of latencies against numpy and scipy, and intervals against the truth they claim to cover."""

import numpy as np
import pytest
import scipy.stats

from android_bench.measure.stats import bootstrap_medians, compare, summarise, summarise_stats
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
    for seed in range(200):
        low, high = summarise(rounds(seed, count, between=0.02))["ci95_ms"]
        hits += low <= truth <= high
    assert hits / 200 >= 0.90


@pytest.mark.parametrize("count", [3, 5, 8])
def test_interval_covers_the_median_of_another_session(count: int) -> None:
    hits = 0
    for seed in range(1000):  # flicker noise: another session is off by as much as one round is
        low, high = summarise(rounds(2 * seed, count))["ci95_ms"]
        (again,) = rounds(2 * seed + 1, 1)
        hits += low <= np.median(again) <= high
    assert hits / 1000 >= 0.93


def test_same_seed_same_interval() -> None:
    assert summarise(rounds(1), seed=3) == summarise(rounds(1), seed=3)


def test_edges() -> None:
    alone = summarise([[2.0]])
    assert (alone["median_ms"], alone["std_ms"], alone["n"], alone["ci95_ms"]) == (2.0, 0.0, 1, None)
    assert summarise([[1.0] * 5, [1.0] * 5])["ci95_ms"] == [1.0, 1.0]
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
    assert summarise_stats([stat, stat])["ci95_ms"] == [5.0, 5.0]


def test_one_round_shows_no_difference() -> None:
    slow, fast = rounds(0, between=0.002), [0.5 * r for r in rounds(1, between=0.002)]
    for a, b in ((slow[:1], fast), (slow, fast[:1]), (slow[:1], fast[:1])):
        result = compare(a, b)
        assert (result["ci95"], result["sure"], result["verdict"]) == (None, None, "no difference shown")
        assert result["ratio"] == pytest.approx(0.5, abs=0.02)


def test_compare() -> None:
    slow, fast = rounds(0, between=0.002), [0.8 * r for r in rounds(1, between=0.002)]
    result = compare(slow, fast)
    assert result["verdict"] == "faster"
    assert result["ratio"] == pytest.approx(0.8, abs=0.01)
    assert result["ci95"][0] <= 0.8 <= result["ci95"][1]
    assert result["sure"] > 0.99
    assert compare(fast, slow)["verdict"] == "slower"
    assert compare(rounds(3), rounds(4))["verdict"] == "no difference shown"


def test_compare_rarely_sees_a_difference_where_there_is_none() -> None:
    pairs = [compare(rounds(2 * s), rounds(2 * s + 1))["verdict"] for s in range(100)]
    assert pairs.count("no difference shown") >= 90
