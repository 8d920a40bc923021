"""Which network fits a budget: the catalog's networks with their latency on a device, measured or predicted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from android_bench.errors import BenchError
from android_bench.predict.device import Device, identity_of
from android_bench.predict.operations import Operation, parse, rescale
from edgecls.errors import UsageError
from edgecls.run import Run
from edgecls.workflow.common import run_preprocess
from edgecls.workflow.latencies import BYTES, CLASSES, Latencies, bench_name, find_device, row_of
from edgecls.zoo import catalog
from edgecls.zoo.entry import Entry
from edgecls.zoo.operations import operations

SCHEMA = "edgecls.choose/1"
_MEMORY_BASE = 12 * 2**20  # of a runtime before it loads a file; scripts/verify_predictor.py checks it


@dataclass(frozen=True)
class Budget:
    """What may not be exceeded; None: no limit. Milliseconds, MB (10^6 bytes) of the file, MiB of memory."""

    ms: float | None = None
    mb: float | None = None
    memory_mib: float | None = None

    def limits(self) -> dict[str, float]:
        """The limits that there are, by the field of a candidate."""
        found = {"ms": self.ms, "mb": self.mb, "memory_mib": self.memory_mib}
        return {key: limit for key, limit in found.items() if limit is not None}


def choose(
    device: str,
    threads: int,
    budget: Budget,
    *,
    precision: str = "fp32",
    input_size: int | None = None,
    classes: int = CLASSES,
    patterns: Sequence[str] = ("*",),
    runs: Sequence[Run] = (),
) -> dict[str, Any]:
    """What the catalog's networks cost on a device, and which of them fit a budget.

    Args:
        device: A device that was measured, ``sd855`` for the published figures, or a bench.json.
        threads: Number of threads.
        budget: What may not be exceeded.
        precision: ``fp32`` or ``int8``.
        input_size: Side of the image, pixels; None: as published.
        classes: Number of classes.
        patterns: Shell patterns of catalog names.
        runs: Own runs to put among the candidates.

    Returns:
        The content that ``edgecls choose --json`` prints, schema ``edgecls.choose/1``: ``candidates`` (best published
        accuracy first, each with ``fits``: ``yes``, ``perhaps`` or ``no``), and ``refused`` with reasons.

    Raises:
        MissingError: Nothing was measured on the device.
        UsageError: A pattern matches no network.
        BenchError: Too few networks were measured, or none with so many threads.
    """
    known = find_device(device)
    judge = _Judge(known, threads, precision, budget)
    candidates, refused = [], []
    for entry in _entries(patterns):
        try:
            candidates.append(judge.candidate(entry, input_size, classes))
        except (BenchError, ValueError) as error:
            refused.append({"name": entry.name, "reason": getattr(error, "what", str(error))})
    for run in runs:
        try:
            candidates.append(judge.own(run))
        except BenchError as error:
            refused.append({"name": str(run.path), "reason": error.what})
    candidates.sort(key=lambda c: (not c["own"], c["top1"] is None, -(c["top1"] or 0), c["ms"]))
    _mark_front(candidates)
    return {
        "schema": SCHEMA,
        "device": {
            "name": known.name,
            "about": known.about,
            "runtime": known.runtime,
            "bench_name": bench_name(known),
        },
        "predicted_from": judge.source,
        "threads": threads,
        "precision": precision,
        "input_size": input_size,
        "classes": classes,
        "budget": {"max_ms": budget.ms, "max_mb": budget.mb, "max_memory_mib": budget.memory_mib},
        "candidates": candidates,
        "refused": refused,
    }


def _entries(patterns: Sequence[str]) -> list[Entry]:
    found: dict[str, Entry] = {}
    for pattern in patterns:
        names = catalog.names(pattern)
        if not names:
            raise UsageError(f"no network is called like {pattern!r}", fix="edgecls models lists the names")
        found |= {name: catalog.get(name) for name in names}
    return list(found.values())


class _Judge:
    """Makes candidates: what a network costs on one device in one precision, and whether that fits."""

    def __init__(self, device: Device, threads: int, precision: str, budget: Budget) -> None:
        counts = sorted({t for n in device.networks for t in n.figures})
        if threads not in counts:
            raise UsageError(
                f"{device.name} was measured with {', '.join(map(str, counts)) or 'no'} threads, not with {threads}",
                where="--threads",
                fix=f"measure it: edgecls bench --calibrate --device {bench_name(device)} --threads {threads}",
            )
        self._device, self._threads, self._precision, self._budget = device, threads, precision, budget
        self._latencies = Latencies(device, precision, threads)

    @property
    def source(self) -> dict[str, Any]:
        """What predictions are made from."""
        return self._latencies.source

    def candidate(self, entry: Entry, input_size: int | None, classes: int) -> dict[str, Any]:
        """A catalog network.

        Raises:
            BenchError: It was not measured, and nothing can be predicted of it.
            ValueError: What it costs at this size is not known.
        """
        kept = operations(entry.name)
        size = input_size or entry.input_size
        executed = rescale(parse(kept.text, classes), kept.input_size, size)
        peak = entry.peak_activations * (size / entry.input_size) ** 2
        latency = self._latencies.of(entry.architecture, kept.input_size, size, kept.text, classes)
        return self._judged(
            {
                "name": entry.name,
                "family": entry.family,
                "own": False,
                "top1": entry.top1,
                "input_size": size,
                "published_input_size": entry.input_size,
                "weights": list(entry.weights),
                **latency,
                **footprint(executed, self._precision, peak),
            }
        )

    def own(self, run: Run) -> dict[str, Any]:
        """A user's run, with the accuracy on its own test images.

        Raises:
            MissingError: It has no file in this precision.
        """
        from android_bench.predict.tflite import read_operations
        from edgecls.report.facts import Facts

        path = run.require("export", f"model_{self._precision}.tflite", fix="make it with: edgecls export")
        facts, executed = Facts(run), read_operations(path)
        row = facts.result(self._precision, self._threads)
        if row and self._device.identity == identity_of(facts.bench):
            latency = {"ms": row["median_ms"], "interval": row.get("ci95_ms"), "measured": True}
            latency["sure"] = row["status"] == "ok"
        else:
            latency = row_of(self._latencies.predict(executed), measured=False)
        entry, size = catalog.find(run.recipe.model.name or ""), run_preprocess(run).size
        peak = max((sum(map(math.prod, (*o.inputs, o.output))) for o in executed), default=0)
        return self._judged(
            {
                "name": f"{run.recipe.name} {run.path.name}",
                "family": entry.family if entry else "own",
                "own": True,
                "top1": facts.scores("int8" if self._precision == "int8" else "float").get("top1"),
                "input_size": size,
                "published_input_size": size,
                "weights": [],
                **latency,
                **footprint(executed, self._precision, peak),
                "mb": path.stat().st_size / 1e6,
            }
        )

    def _judged(self, candidate: dict[str, Any]) -> dict[str, Any]:
        """With ``fits`` and ``excess``: how many times its limit the worst of its costs is."""
        limits = self._budget.limits()
        excess = max((candidate[key] / limit for key, limit in limits.items()), default=0.0)
        interval = candidate["interval"]
        surely = not interval or interval[1] <= limits.get("ms", math.inf)
        fits = "no" if excess > 1 else "yes" if surely else "perhaps"
        return {**candidate, "fits": fits, "excess": excess}


_CHANNEL_BYTES, _OPERATION_BYTES = 27, 500
"""int8 files have for each channel of a convolution two scales, two zero points and three more bytes of the bias."""
_FLOAT_OPERATION_BYTES = 300


def footprint(executed: Sequence[Operation], precision: str, peak: float) -> dict[str, Any]:
    """What a network takes besides time: ``mb`` of the file, ``memory_mib`` while it runs, ``macs``, ``params``.

    Args:
        executed: Its operations.
        precision: ``fp32`` or ``int8``.
        peak: Values of feature maps that exist at once.
    """
    params = sum(o.weights for o in executed)
    size = BYTES[precision] * params
    if precision == "int8":
        size += _CHANNEL_BYTES * sum(o.output[-1] for o in executed if o.weights)
        size += _OPERATION_BYTES * len(executed)
    else:
        size += _FLOAT_OPERATION_BYTES * len(executed)
    # A runtime keeps the weights a second time, in the order that its kernels read them.
    memory = _MEMORY_BASE + 2 * size + BYTES[precision] * peak
    return {
        "mb": size / 1e6,
        "memory_mib": memory / 2**20,
        "macs": sum(o.macs for o in executed),
        "params": params,
    }


def _mark_front(candidates: Sequence[dict[str, Any]]) -> None:
    """Mark the Pareto front: no other network is as accurate and as fast, and better in one of the two."""
    best = math.inf
    published = [c for c in candidates if not c["own"] and c["top1"] is not None]
    for candidate in candidates:
        candidate["front"] = False
    for candidate in sorted(published, key=lambda c: (-c["top1"], c["ms"])):
        if candidate["ms"] < best:
            candidate["front"], best = True, candidate["ms"]
