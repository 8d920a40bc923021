"""Statistics of repeated latencies: the figures, and their 95 % interval.

Runs within one round are nearly alike; rounds differ (clocks, caches, other programs). So runs are not independent, and
an interval from the pooled runs alone is far too narrow. The interval here resamples rounds, then runs (two-stage
bootstrap: Davison & Hinkley 1997, section 3.8). The bootstrap is too optimistic for few clusters. To correct this, the
deviations of the k rounds are first stretched by sqrt(k / (k - 1)) * t(k - 1) / z.

Clocks drift over minutes as much as over seconds (flicker noise), so more rounds in a row tell little more about the
next session. The interval is therefore one of prediction: it holds the median that the same measurement would give
again. The stretch has the factor sqrt(k + 1) for this, which is that of predicting one round from k.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from android_bench.output.parse import Stat

Array = np.ndarray[Any, np.dtype[np.float64]]

# Student's t at 97.5 % for 1 to 9 degrees of freedom.
_T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
_Z975 = 1.960


def summarise(rounds: Sequence[Sequence[float]], *, seed: int = 0) -> dict[str, Any]:
    """Summary of latencies in ms.

    Args:
        rounds: One sequence of latencies in ms for each round.
        seed: Seed of the bootstrap: the same runs give the same interval.

    Returns:
        ``median_ms p90_ms p99_ms min_ms max_ms mean_ms std_ms`` (std with n - 1), ``n`` and ``ci95_ms``, the
        95 % interval ``[low, high]`` for the median of this measurement made again. One round tells nothing about
        the difference between rounds, so it has no interval: None.

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
        "ci95_ms": _interval(kept, float(median), seed) if len(kept) > 1 else None,
    }


def _interval(rounds: list[Array], median: float, seed: int) -> list[float]:
    """The 95 % interval of a median. A latency is positive, and the observed median lies in its own interval."""
    low, high = np.percentile(bootstrap_medians(rounds, seed=seed), [2.5, 97.5])
    return [round(max(0.0, min(float(low), median)), 6), round(max(float(high), median), 6)]


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


def compare(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]], *, seed: int = 0) -> dict[str, Any]:
    """Tells whether B is faster than A, by how much, and how sure that is.

    Args:
        a: Rounds of latencies in ms of the baseline.
        b: Rounds of latencies in ms of the candidate.
        seed: Seed of the bootstrap.

    Returns:
        ``ratio`` (median of B over median of A: 0.8 means B needs 20 % less time), ``ci95`` of the ratio,
        ``sure`` (share of resamples in which B is faster) and ``verdict``: ``"faster"``, ``"slower"``, or
        ``"no difference shown"`` when the interval contains 1. Where A or B has one round only, ``ci95`` and ``sure``
        are None and no difference is shown.
    """
    rounds_a, rounds_b = _arrays(a), _arrays(b)
    ratio = float(np.median(np.concatenate(rounds_b)) / np.median(np.concatenate(rounds_a)))
    if min(len(rounds_a), len(rounds_b)) < 2:
        return {"ratio": round(ratio, 6), "ci95": None, "sure": None, "verdict": "no difference shown"}
    draws_a = np.maximum(bootstrap_medians(rounds_a, seed=seed), np.finfo(float).tiny)
    draws_b = np.maximum(bootstrap_medians(rounds_b, seed=seed + 1), 0.0)
    low, high = (float(end) for end in np.percentile(draws_b / draws_a, [2.5, 97.5]))
    low, high = min(low, ratio), max(high, ratio)
    verdict = "faster" if high < 1 else "slower" if low > 1 else "no difference shown"
    return {
        "ratio": round(ratio, 6),
        "ci95": [round(low, 6), round(high, 6)],
        "sure": round(float(np.mean(draws_b < draws_a)), 4),
        "verdict": verdict,
    }


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
    t = _T975[k - 2] if k - 2 < len(_T975) else _Z975 + 2.5 / (k - 1)
    factor = np.sqrt((k + 1) * k / (k - 1)) * t / _Z975
    centre = np.median(np.concatenate(arrays))
    return [r + (factor - 1) * (np.median(r) - centre) for r in arrays]
