"""Is a verdict of `bench --compare` to be trusted? Simulated measurements of pairs of which the truth is known.

    python scripts/bench_stats.py [--sessions 500] [--docs]

A simulated phone has what real ones have: its clocks wander from round to round (flicker noise, shared by all models),
it gets slower within a session by as much as between two (0, 2, 4 %), each round is off by itself (0.7 %, with the
heavy tails of Student's t with 4 degrees of freedom), and runs within a round are nearly alike. Pairs are equal, or B
is 5, 10, 20 % faster. Each pair is measured by turns in one session, in two sessions on a phone of which nothing else is
known, and in two sessions on a phone that was measured ten times before. The code that compares is that of `bench`.

``--docs`` writes the table into docs/bench.md. Exit code 1 when, by turns, more than 2 % of equal pairs are called
different, or fewer than 95 % of the intervals hold the true ratio. About a minute.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import marked

from android_bench.measure import history
from android_bench.measure.baseline import duel

DOCS = Path(__file__).parents[1] / "docs/bench.md"
BEGIN, END = "<!-- measured by scripts/bench_stats.py -->", "<!-- end -->"
ROUNDS, RUNS, BASE_MS = 5, 30, 8.0
WANDER, OWN, EARLIER = 0.01, 0.007, 10
DRIFTS, FASTER = (0.0, 0.02, 0.04), (0.0, 0.05, 0.10, 0.20)
MOST_FALSE, LEAST_COVERED = 0.02, 0.95
Document = dict[str, Any]


def flicker(rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Noise of one session's rounds that drifts over any time: steps that each last 1, 2, 4, ... rounds."""
    parts = [np.repeat(rng.normal(size=ROUNDS), length)[:ROUNDS] for length in (1, 2, 4, 8)]
    return WANDER * np.sum(parts, axis=0) / 2


def session(rng: np.random.Generator, name: str, drift: float, slow: float, *models: float) -> Document:
    """The document of one session.

    Args:
        rng: The source of all noise.
        name: Of the session.
        drift: Within the session the phone gets slower by this share.
        slow: The whole session is slower by this factor.
        models: The true latencies in ms.
    """
    moments = 1 + drift * np.arange(ROUNDS * len(models)) / (ROUNDS * len(models))
    shared, results = flicker(rng), []
    for index, ms in enumerate(models):
        own = OWN * rng.standard_t(4, ROUNDS) / np.sqrt(2)
        turn = np.arange(ROUNDS)
        places = len(models) * turn + np.where(turn % 2, len(models) - 1 - index, index)  # A B, B A, A B, ...
        centres = ms * slow * moments[places] * np.exp(shared + own)
        rounds = [centre * (1 + rng.gamma(2, 0.003, RUNS)) for centre in centres]
        rows = [
            {"used": True, "median_ms": float(np.median(runs)), "samples_ms": runs.tolist()}
            | {"session": name, "turn": turn}
            for turn, runs in enumerate(rounds)
        ]
        median = float(np.median(np.concatenate(rounds)))
        model = {"model": f"m{index}", "sha256": str(ms), "threads": 1, "status": "ok", "median_ms": median}
        results.append({**model, "rounds": rows})
    return {"device": {"name": "simulated", "cpu": "simulated"}, "started": name, "results": results}


def part(document: Document, index: int) -> Document:
    return {**document, "results": [document["results"][index]]}


def by_turns(rng: np.random.Generator, drift: float, ratio: float) -> tuple[Document, Document]:
    both = session(rng, "now", drift, 1.0, BASE_MS, BASE_MS * ratio)
    return part(both, 0), part(both, 1)


def apart(rng: np.random.Generator, drift: float, ratio: float) -> tuple[Document, Document]:
    """Two sessions; the phone is slower in the second."""
    a, b = session(rng, "before", 0.0, 1.0, BASE_MS), session(rng, "now", 0.0, 1 + drift, BASE_MS * ratio)
    b["results"][0]["model"] = "m1"
    return a, b


def known(rng: np.random.Generator, drift: float, ratio: float) -> tuple[Document, Document]:
    """Two sessions on a phone whose sessions differ by ``drift`` at random, which earlier ones have shown."""
    folder = Path(os.environ["EDGECLS_CACHE"]) / "sessions"
    for file in folder.glob("*"):
        file.unlink()
    slows = np.exp(drift * rng.normal(size=EARLIER + 2))
    for number, slow in enumerate(slows[2:]):
        history.remember(session(rng, f"earlier {number}", 0.0, slow, BASE_MS))
    a, b = (
        session(rng, name, 0.0, slow, ms)
        for name, slow, ms in (("before", slows[0], BASE_MS), ("now", slows[1], BASE_MS * ratio))
    )
    b["results"][0]["model"] = "m1"
    return a, b


WAYS: dict[str, Callable[[np.random.Generator, float, float], tuple[Document, Document]]] = {
    "by turns": by_turns,
    "two sessions, device not known": apart,
    "two sessions, device measured before": known,
}


def tried(sessions: int) -> Iterator[tuple[str, float, float, float, float]]:
    """Way, drift, how much faster B is, share of sure verdicts that are right (or, of equal pairs, wrong), coverage."""
    for way, measure in WAYS.items():
        for drift in DRIFTS:
            for faster in FASTER:
                rng = np.random.default_rng([len(way), round(1000 * drift), round(1000 * faster)])
                verdicts, covered = [], 0
                for _ in range(sessions):
                    (pair,) = duel(*measure(rng, drift, 1 - faster))["pairs"]
                    low, high = pair["ci95"]
                    covered += (low or 0) <= 1 - faster <= (high or np.inf)
                    verdicts.append(pair["verdict"])
                sure = verdicts.count("faster") + (verdicts.count("slower") if not faster else 0)
                yield way, drift, faster, sure / sessions, covered / sessions


def table(rows: list[tuple[str, float, float, float, float]], sessions: int) -> str:
    """The figures as Markdown."""
    lines = [
        f"{sessions} simulated pairs in each cell, {ROUNDS} rounds each: share of pairs with a sure verdict, and of intervals "
        "that hold the true ratio.",
        "",
        "| measured | drift | equal, called different | "
        + " | ".join(f"{f:.0%} faster, found".replace("%", " %") for f in FASTER[1:])
        + " | intervals that hold |",
        "|---|---|" + "---|" * (len(FASTER) + 1),
    ]
    for start in range(0, len(rows), len(FASTER)):
        group = rows[start : start + len(FASTER)]
        cells = [f"{row[3]:.1%}" for row in group] + [f"{min(row[4] for row in group):.1%}"]
        lines.append("| " + " | ".join([group[0][0], f"{group[0][1]:.0%}", *cells]).replace("%", " %") + " |")
    return "\n".join(lines)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--sessions", type=int, default=500)
    options.add_argument("--docs", action="store_true", help="write the table into docs/bench.md")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["EDGECLS_CACHE"] = cache  # the user's own history is left alone
        rows = list(tried(chosen.sessions))
    text = table(rows, chosen.sessions)
    print(text)
    if chosen.docs:
        marked.rewrite(DOCS, BEGIN, END, text)
    turns = [row for row in rows if row[0] == "by turns"]
    false, covered = max(row[3] for row in turns if not row[2]), min(row[4] for row in turns)
    print(f"by turns: at most {false:.1%} false verdicts, at least {covered:.1%} of the intervals hold")
    return int(false > MOST_FALSE or covered < LEAST_COVERED)


if __name__ == "__main__":
    sys.exit(main())
