"""Statistics of repeated latencies: the figures with their 95 % interval, and which of two models is faster.

Runs within one round are nearly alike; rounds differ (clocks, caches, other programs). So runs are not independent, and
an interval from the pooled runs alone is far too narrow. The interval of a median resamples rounds, then runs (two-stage
bootstrap: Davison & Hinkley 1997, section 3.8). The bootstrap is too optimistic for few clusters. To correct this, the
deviations of the k rounds are first stretched by sqrt(k / (k - 1)) * t(k - 1) / z.

Clocks drift over minutes as much as over seconds (flicker noise), so more rounds in a row tell little more about the
next session. The interval is therefore one of prediction: it holds the median that the same measurement would give
again. The stretch has the factor sqrt(k + 1) for this, which is that of predicting one round from k.

Two models are compared by the logarithms of their rounds' medians. When they were measured by turns, each round gives
one ratio, from which whatever slows the whole device is gone, and the interval is that of Student's t. Otherwise it is
Welch's, wider by what sessions on the device differ (``history``).

A clock that is too coarse hides all differences between rounds. Rounds that are all equal have no interval.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from android_bench.output.parse import Stat

Array = np.ndarray[Any, np.dtype[np.float64]]

NOT_KNOWN, NO_DIFFERENCE = "not known", "no difference shown"
# Of a comparison. 95 % would call one of twenty equal pairs different.
LEVEL = 0.99
OPEN = 1000.0  # an end of the interval of a ratio beyond this, or below its inverse, is open

_Z975 = 1.960
_MOST_DF = 400  # Student's t is the normal distribution from here on


def summarise(rounds: Sequence[Sequence[float]], *, seed: int = 0) -> dict[str, Any]:
    """Summary of latencies in ms.

    Args:
        rounds: One sequence of latencies in ms for each round.
        seed: Seed of the bootstrap: the same runs give the same interval.

    Returns:
        ``median_ms p90_ms p99_ms min_ms max_ms mean_ms std_ms`` (std with n - 1), ``n`` and ``ci95_ms``, the
        95 % interval ``[low, high]`` for the median of this measurement made again. One round tells nothing about
        the difference between rounds, so it has no interval: None. Nor have runs that all took the same time.

    Raises:
        ValueError: There is no run at all, or a latency is not a finite number.
    """
    kept = _arrays(rounds)
    runs = np.concatenate(kept)
    median, p90, p99 = np.percentile(runs, [50, 90, 99])
    figures = {
        "median_ms": median,
        "p90_ms": p90,
        "p99_ms": p99,
        "min_ms": runs.min(),
        "max_ms": runs.max(),
        "mean_ms": runs.mean(),
        "std_ms": runs.std(ddof=1) if len(runs) > 1 else 0.0,
    }
    return {
        **{name: round(float(value), 6) for name, value in figures.items()},
        "n": len(runs),
        "ci95_ms": _interval(kept, float(median), seed),
    }


def _interval(rounds: list[Array], median: float, seed: int) -> list[float] | None:
    """The 95 % interval of a median. A latency is positive, and the observed median lies in its own interval."""
    resolution = _resolution(rounds)
    if len(rounds) < 2 or resolution is None:
        return None
    low, high = np.percentile(bootstrap_medians(rounds, seed=seed), [2.5, 97.5])
    low, high = min(float(low), median) - resolution, max(float(high), median) + resolution
    return [round(max(0.0, low), 6), round(high, 6)]


def _resolution(rounds: list[Array]) -> float | None:
    """The step of the clock in ms: what all latencies are multiples of, at least 1 ns. None when all are equal."""
    nanoseconds = np.rint(np.unique(np.concatenate(rounds)) * 1e6).astype(np.int64)
    return max(1, int(np.gcd.reduce(nanoseconds))) / 1e6 if len(nanoseconds) > 1 else None


def summarise_stats(rounds: Sequence[Stat], *, seed: int = 0) -> dict[str, Any]:
    """As ``summarise``, for rounds of which only the statistics are known.

    The median is that of the rounds' medians (of their means where a median is missing), ``ci95_ms`` its interval
    from the rounds alone, ``p95_ms`` the median of the rounds' 95th percentiles. The minimum, maximum, mean and
    deviation are those of all runs together. ``p90_ms`` and ``p99_ms`` cannot be known: None.
    """
    counts = np.array([r.count for r in rounds])
    means, stds = np.array([r.mean_ms for r in rounds]), np.array([r.std_ms for r in rounds])
    total, mean = int(counts.sum()), float(np.average(means, weights=counts))
    spread = float((counts * stds**2 + counts * (means - mean) ** 2).sum())
    middles = [[r.mean_ms if r.median_ms is None else r.median_ms] for r in rounds]
    figures = summarise(middles, seed=seed)
    tails = [r.p95_ms for r in rounds if r.p95_ms is not None]
    return {
        "median_ms": figures["median_ms"],
        "p90_ms": None,
        "p99_ms": None,
        "min_ms": round(min(r.min_ms for r in rounds), 6),
        "max_ms": round(max(r.max_ms for r in rounds), 6),
        "mean_ms": round(mean, 6),
        "std_ms": round(float(np.sqrt(spread / total)), 6),
        "n": total,
        "ci95_ms": figures["ci95_ms"],
        "p95_ms": round(float(np.median(tails)), 6) if tails else None,
    }


def bootstrap_medians(
    rounds: Sequence[Sequence[float]] | Sequence[Array], *, resamples: int = 2000, seed: int = 0
) -> Array:
    """Medians of ``resamples`` two-stage bootstrap samples, float64 ``[resamples]``.

    A bootstrap median of n runs is the order statistic whose position is Beta((n + 1) / 2, (n + 1) / 2)
    distributed, so it is drawn from the sorted runs directly: 100,000 runs cost no more than 100.
    """
    arrays = _arrays(rounds)
    rng = np.random.default_rng(seed)
    if len(arrays) > 1:
        arrays = _stretch(arrays)
    chosen, group = np.unique(
        np.sort(rng.integers(len(arrays), size=(resamples, len(arrays))), axis=1), axis=0, return_inverse=True
    )
    medians = np.empty(resamples)
    for index, combination in enumerate(chosen):
        runs = np.sort(np.concatenate([arrays[i] for i in combination]))
        members = np.flatnonzero(group.reshape(-1) == index)
        half = (len(runs) + 1) / 2
        medians[members] = runs[(rng.beta(half, half, size=len(members)) * len(runs)).astype(int)]
    return medians


def compare(
    a: Sequence[Sequence[float]],
    b: Sequence[Sequence[float]],
    *,
    by_turns: bool = False,
    drift: float = 0.0,
    drift_df: float = math.inf,
) -> dict[str, Any]:
    """Tells whether B is faster than A, by how much, and how sure that is.

    Args:
        a: Rounds of latencies in ms of the baseline.
        b: Rounds of latencies in ms of the candidate.
        by_turns: Rounds of the same index were measured one right after the other.
        drift: Standard deviation of the logarithm of the same latency between sessions; used unless ``by_turns``.
        drift_df: Degrees of freedom from which ``drift`` is known.

    Returns:
        ``ratio`` (B over A: 0.8 means B needs 20 % less time; of the geometric means of the rounds' medians), ``ci95``
        of the ratio, ``sure`` (probability that B is faster) and ``verdict``: ``"faster"``, ``"slower"``,
        ``"no difference shown"`` when the interval contains 1, or ``"not known"``. The interval is at least a 95 % one
        (by the t distribution of ``LEVEL``). An end of it is None where it is open. Where A or B has one round only, or
        all its runs took the same time, ``ci95`` and ``sure`` are None and the verdict is not known.

    Raises:
        ValueError: There is no run at all, a latency is not positive and finite, or ``by_turns`` and the two have not
            the same number of rounds.

    Example:
        >>> compare([[10.0], [10.2], [10.1]], [[8.0], [8.1], [8.1]], by_turns=True)["verdict"]
        'faster'
    """
    rounds = _arrays(a), _arrays(b)
    if not all((r > 0).all() for side in rounds for r in side):
        raise ValueError("a latency is not positive")
    x, y = (np.log([np.median(r) for r in side]) for side in rounds)
    if by_turns and len(x) != len(y):
        raise ValueError("rounds by turns come in pairs")
    ratio = float(np.exp(y.mean() - x.mean()))
    steps = [_resolution(side) for side in rounds]
    if min(len(x), len(y)) < 2 or None in steps:
        return {"ratio": round(ratio, 6), "ci95": None, "sure": None, "verdict": NOT_KNOWN}
    if by_turns:
        error, df = _standard_error([(float((y - x).var(ddof=1)) / len(x), len(x) - 1)])
    else:
        between = [(float(z.var(ddof=1)) / len(z), len(z) - 1) for z in (x, y)]
        error, df = _standard_error([*between, (2 * drift**2, drift_df)])
    # What the clock cannot tell apart counts as one more standard error.
    coarse = (step / np.exp(z.mean()) for step, z in zip(steps, (x, y), strict=True))
    error = math.hypot(error, *coarse)
    reach = t_quantile(0.5 + LEVEL / 2, df) * error
    log = math.log(ratio)
    verdict = "faster" if log + reach < 0 else "slower" if log - reach > 0 else NO_DIFFERENCE
    return {
        "ratio": round(ratio, 6),
        "ci95": [_end(log - reach), _end(log + reach)],
        "sure": round(t_cdf(-log / error, df), 4),
        "verdict": verdict,
    }


def _standard_error(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Of a sum of estimates with their variances and degrees of freedom: its own (Welch-Satterthwaite)."""
    total = sum(variance for variance, _ in parts)
    if total == 0:
        return 0.0, min(df for _, df in parts)
    return math.sqrt(total), total**2 / max(sum(v**2 / df for v, df in parts), total**2 / _MOST_DF)


def _end(log: float) -> float | None:
    """An end of the interval of a ratio from its logarithm; None where it is open."""
    return round(math.exp(log), 6) if abs(log) < math.log(OPEN) else None


def t_cdf(t: float, df: float) -> float:
    """Student's distribution function.

    Args:
        t: Where.
        df: Degrees of freedom, at least 1. They are rounded down, which makes intervals wider, and capped at 400.

    Example:
        >>> round(t_cdf(2.776, 4), 3)
        0.975
    """
    whole = int(min(df, _MOST_DF))
    angle = math.atan2(t, math.sqrt(whole))
    # The finite series for whole degrees of freedom: Abramowitz & Stegun 1964, 26.7.3 and 26.7.4.
    term = math.sin(angle) * (math.cos(angle) if whole % 2 else 1.0)
    series = 0.0 if whole == 1 else term
    for k in range(3 if whole % 2 else 2, whole - 1, 2):
        term *= (k - 1) / k * math.cos(angle) ** 2
        series += term
    share = 2 / math.pi * (angle + series) if whole % 2 else series
    return 0.5 + share / 2


@functools.cache
def t_quantile(share: float, df: float) -> float:
    """Where ``t_cdf`` has the value ``share``, which lies between 0.5 and 1.

    Example:
        >>> round(t_quantile(0.975, 4), 3)
        2.776
    """
    low, high = 0.0, 1.0
    while t_cdf(high, df) < share:
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, df) < share else (low, middle)
    return high


def _arrays(rounds: Sequence[Sequence[float]] | Sequence[Array]) -> list[Array]:
    arrays = [np.asarray(r, dtype=np.float64) for r in rounds if len(r)]
    if not arrays:
        raise ValueError("statistics of no runs at all")
    if not all(np.isfinite(r).all() for r in arrays):
        raise ValueError("a latency is not a finite number")
    return arrays


def _stretch(arrays: list[Array]) -> list[Array]:
    """Moves each round away from the overall median; see the text at the top of this module."""
    k = len(arrays)
    factor = np.sqrt((k + 1) * k / (k - 1)) * t_quantile(0.975, k - 1) / _Z975
    centre = np.median(np.concatenate(arrays))
    return [r + (factor - 1) * (np.median(r) - centre) for r in arrays]
