"""What the experiments share: options, a file of finished runs that a stopped experiment goes on from, a table in a page."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import marked

from edgecls.errors import EdgeclsError

if TYPE_CHECKING:
    from edgecls.console import Console
    from edgecls.data.sources import Dataset
    from edgecls.recipe import Part
    from edgecls.run import Run
    from edgecls.train.callbacks import Callback

Results = Mapping[str, Mapping[str, Any]]
"""Finished runs by their key."""


def options(
    description: str | None,
    results: str,
    page: Path,
    rows: Collection[str],
    data: str | None = "folder of the four IDX files",
) -> argparse.Namespace:
    """The command's ``data``, ``results``, ``minutes``, ``only`` and ``write``.

    Args:
        description: The script's.
        results: File of finished runs, unless another is named.
        page: Which page ``--write`` writes to.
        rows: Names that ``--only`` may have.
        data: What the argument ``data`` is; None: the command has none.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if data:
        parser.add_argument("data", help=data)
    parser.add_argument("--results", type=Path, default=Path(results))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after this time")
    parser.add_argument("--only", action="append", help="rows to run; default: all")
    parser.add_argument("--write", action="store_true", help=f"put the table into docs/{page.name}")
    chosen = parser.parse_args()
    unknown = set(chosen.only or ()) - set(rows)
    if unknown:
        parser.error(f"no row {', '.join(unknown)}; rows: {', '.join(rows)}")
    return chosen


def finish(
    chosen: argparse.Namespace,
    rows: Collection[str],
    seeds: int,
    key: Callable[[str, int], str],
    run: Callable[[str, int], dict[str, float]],
    score: str = "top1",
) -> None:
    """Do the runs that are missing, and keep each as it ends.

    Args:
        chosen: See ``options``.
        rows: Names of the table's rows.
        seeds: Each row is run with the seeds 0 to ``seeds - 1``.
        key: Tells the runs of a row and a seed apart by all that they are made by.
        run: Trains a row with a seed; gives ``score``, a share, and ``seconds``.
        score: Name of the figure that is told.
    """
    end = time.monotonic() + 60 * chosen.minutes
    for seed in range(seeds):  # a table of one seed is there before the second begins
        for name in chosen.only or rows:
            if key(name, seed) in finished(chosen.results) or time.monotonic() > end:
                continue
            try:
                figures = run(name, seed)
            except EdgeclsError as error:
                print(f"{name}, seed {seed}: {error}", file=sys.stderr)
                sys.exit(error.exit_code)
            result: dict[str, Any] = {"key": key(name, seed), "row": name, "seed": seed, **figures}
            chosen.results.parent.mkdir(parents=True, exist_ok=True)
            with chosen.results.open("a") as file:
                print(json.dumps(result), file=file)
            shown = f"{100 * result[score]:.2f} % in {result['seconds']:.0f} s"
            print(f"{name}, seed {seed}: {shown}", flush=True)


def train_part(
    part: Part, run: Run, console: Console, data: Dataset, callbacks: Sequence[Callback] = ()
) -> None:
    """One training of a run, unless it is done."""
    from edgecls.workflow.common import run_stage
    from edgecls.workflow.stages import make_part, part_inputs, part_outputs

    inputs = part_inputs(part, data, run)
    work = partial(make_part, part, run, console, data, inputs, callbacks)
    run_stage(run, console, part.stage, inputs, part_outputs(part), work)


def finished(path: Path) -> dict[str, dict[str, Any]]:
    """Finished runs by their key."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {value["key"]: value for value in map(json.loads, lines)}


def by_seed(
    name: str, seeds: int, key: Callable[[str, int], str], done: Results
) -> dict[int, Mapping[str, Any]]:
    """The finished runs of a row."""
    return {seed: done[k] for seed in range(seeds) if (k := key(name, seed)) in done}


def spread_of(values: Sequence[float], digits: int = 2) -> str:
    """Standard deviation; of a single value there is none."""
    return f"{statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""


def mean_and_ends(differences: Sequence[float], digits: int = 2) -> str:
    """The mean with its sign, and the smallest and the largest; of no values nothing."""
    if not differences:
        return ""
    ends = (statistics.mean(differences), min(differences), max(differences))
    return "{} ({} to {})".format(*(f"{value:+.{digits}f}" for value in ends))


def show(chosen: argparse.Namespace, page: Path, begin: str, end: str, text: str) -> None:
    """Print the table, and put it into the page if that was asked for."""
    print(text)
    if chosen.write:
        marked.rewrite(page, begin, end, text)
