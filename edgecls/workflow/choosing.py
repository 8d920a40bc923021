"""Which network fits a budget: the catalog's networks with their latency on a device, measured or predicted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from android_bench.errors import BenchError
from android_bench.predict import device as devices
from android_bench.predict.device import Device, Figure, Network
from android_bench.predict.latency import RUNTIME_REACH, Prediction, Predictor
from android_bench.predict.operations import Operation, parse, rescale
from android_bench.predict.short_list import most_telling
from edgecls.errors import MissingError, UsageError
from edgecls.run import Run
from edgecls.zoo import catalog
from edgecls.zoo.entry import Entry
from edgecls.zoo.operations import operations

SCHEMA = "edgecls.choose/1"
PUBLISHED = "sd855"
"""The device whose published latencies are built in: Paddle-Lite on a Snapdragon 855, fp32."""
_RUNTIME = "Paddle-Lite"
_DOUBTFUL = ("ShuffleNetV2_swish", "ShuffleNetV2_x2_0_v1")
"""Names with the latency of ShuffleNetV2_x2_0, which is not theirs: the first takes a third of it on two threads."""
CALIBRATION = 10
_CALIBRATION_WEIGHTS = 25e6  # more take long to send to a phone
_CALIBRATION_MS = 120.0  # on a Snapdragon 855, fp32, one thread
_CLASSES = 1000  # of what is measured and published
_BYTES = {"fp32": 4, "int8": 1}
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
    classes: int = _CLASSES,
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
        "device": {"name": known.name, "about": known.about, "runtime": known.runtime},
        "predicted_from": judge.source,
        "threads": threads,
        "precision": precision,
        "input_size": input_size,
        "classes": classes,
        "budget": {"max_ms": budget.ms, "max_mb": budget.mb, "max_memory_mib": budget.memory_mib},
        "candidates": candidates,
        "refused": refused,
    }


def find_device(name: str) -> Device:
    """A device by its name, or as a bench.json tells of it.

    Raises:
        MissingError: Nothing was measured on it.
    """
    if name.endswith(".json"):
        from android_bench.output.documents import read_json

        document = read_json(name)
        return devices.learn(Device(name), document, _networks(document))
    if found := devices.read(name):
        return found
    if name.lower() == PUBLISHED:
        return published()
    known = ", ".join(dict.fromkeys([*devices.known_devices(), PUBLISHED]))
    raise MissingError(
        f"nothing was measured on {name!r}, only on {known}",
        fix=f"measure ten networks on it: edgecls bench --calibrate --device {name}",
    )


@cache
def published() -> Device:
    """A Snapdragon 855 with the latencies that PaddleClas publishes."""
    found: dict[str, Network] = {}
    for entry in map(catalog.get, catalog.names()):
        if entry.sd855_ms and entry.architecture not in found and entry.name not in _DOUBTFUL:
            figures = {threads: Figure(ms) for threads, ms in entry.sd855_ms.items()}
            found[entry.architecture] = replace(network_of(entry, "fp32"), figures=figures)
    return Device(PUBLISHED, "Snapdragon 855, as published", _RUNTIME, tuple(found.values()))


def network_of(entry: Entry, precision: str) -> Network:
    """A catalog network without figures."""
    kept = operations(entry.name)
    text = kept.text.replace("N", str(_CLASSES))
    return Network(entry.architecture, entry.family, precision, kept.input_size, text, {})


def calibration_list(count: int = CALIBRATION) -> list[str]:
    """The networks that tell most about a device, see ``android_bench.predict.short_list``."""
    coefficients = published().predictor("fp32").coefficients
    networks: dict[str, list[Operation]] = {}
    for entry in map(catalog.get, catalog.names()):
        if entry.architecture == entry.name:
            networks[entry.name] = parse(operations(entry.name).text)
    handy = {
        name: executed
        for name, executed in networks.items()
        if not any(o.kind == "matmul" for o in executed)
        and sum(o.weights for o in executed) <= _CALIBRATION_WEIGHTS
    }
    return most_telling(handy, coefficients, count, _CALIBRATION_MS)


def learn(document: Mapping[str, Any], device: str) -> Path | None:
    """Keep the figures of a bench.json for ``choose``.

    Args:
        document: Its content, with ``network`` where a result is of a network of the catalog.
        device: Under which name.

    Returns:
        The device's file; None if there is nothing to keep.
    """
    networks = list(_networks(document))
    if not networks or any(r.get("delegate", "cpu") != "cpu" for r in document["results"]):
        return None
    old = devices.read(device) or Device(device)
    return devices.write(devices.learn(old, dict(document), networks))


def _networks(document: Mapping[str, Any]) -> Iterator[Network]:
    """The catalog's networks that a bench.json has figures of."""

    def network(result: dict[str, Any]) -> Network | None:
        precision = Path(str(result["model"])).name.removesuffix(".tflite").rpartition("_")[2]
        if precision not in _BYTES or not result.get("network"):
            return None
        return network_of(catalog.get(result["network"]), precision)

    yield from devices.results_of(dict(document), network)


def _entries(patterns: Sequence[str]) -> list[Entry]:
    found: dict[str, Entry] = {}
    for pattern in patterns:
        names = catalog.names(pattern)
        if not names:
            raise UsageError(f"no network is called like {pattern!r}", fix="edgecls models lists the names")
        found |= {name: catalog.get(name) for name in names}
    return list(found.values())


class _Latencies:
    """Latencies in one precision on one device: measured, or else predicted.

    A network that was measured at another size or with other classes is predicted from its own figure: the predictor
    only tells by what factor the change changes it.
    """

    def __init__(self, device: Device, precision: str, threads: int) -> None:
        self._device, self._precision, self._threads = device, precision, threads
        self._missing: BenchError | None = None
        self._predictor: Predictor | None = None
        self._derived = False
        prior = None if device.runtime == _RUNTIME else published().predictor("fp32").coefficients
        for found in dict.fromkeys((precision, "fp32")):
            try:
                predictor = device.predictor(found, prior)
                predictor.spread(threads)  # enough networks were measured with so many threads
                self._predictor, self._derived = predictor, found != precision
                break
            except BenchError as error:
                self._missing = self._missing or error

    @property
    def source(self) -> dict[str, Any]:
        """What predictions are made from: how many networks, in which precision; their typical 95 % interval."""
        if self._predictor is None:
            return {"networks": 0, "precision": None, "reach": None}
        precision = "fp32" if self._derived else self._precision
        reach = math.expm1(self._predictor.spread(self._threads))
        return {"networks": len(self._predictor.measured), "precision": precision, "reach": reach}

    def of(self, name: str, usual: int, size: int, usual_text: str, classes: int) -> dict[str, Any]:
        """Latency of a network of the catalog, with ``ms``, ``interval`` and ``measured``.

        Raises:
            OutsideError: It was not measured and is too unlike those that were.
            BenchError: It was not measured, and nothing can be predicted.
        """
        executed = rescale(parse(usual_text, classes), usual, size)
        figure = self._device.figure(name, self._precision, usual, self._threads)
        if figure is None:
            return _row(self.predict(executed), measured=False)
        if (size, classes) == (usual, _CLASSES) or (size == usual and not self._predictor):
            return {"ms": figure.ms, "interval": figure.interval, "measured": True, "sure": figure.sure}
        changed, before = (self.predict(o, check=False) for o in (executed, parse(usual_text, _CLASSES)))
        factor = changed.ms / before.ms
        if size == usual:  # another classifier alone
            interval = figure.interval and tuple(end * factor for end in figure.interval)
            return {"ms": figure.ms * factor, "interval": interval, "measured": True, "sure": figure.sure}
        low, high = (end / changed.ms for end in changed.interval)
        ms = figure.ms * factor
        return {"ms": ms, "interval": (ms * low, ms * high), "measured": False, "sure": figure.sure}

    def predict(self, executed: Sequence[Operation], *, check: bool = True) -> Prediction:
        """Raises as ``of``."""
        if self._predictor is None:
            assert self._missing is not None
            raise self._missing
        if not self._derived:
            return self._predictor.predict(executed, self._threads, check=check)
        prediction = self._predictor.predict_int8(executed, self._threads, check=check)
        # Published figures are of another runtime than the one that runs our files.
        return prediction.widened(RUNTIME_REACH) if self._device.runtime == _RUNTIME else prediction


def _row(prediction: Prediction, *, measured: bool) -> dict[str, Any]:
    return {"ms": prediction.ms, "interval": prediction.interval, "measured": measured, "sure": True}


class _Judge:
    """Makes candidates: what a network costs on one device in one precision, and whether that fits."""

    def __init__(self, device: Device, threads: int, precision: str, budget: Budget) -> None:
        counts = sorted({t for n in device.networks for t in n.figures})
        if threads not in counts:
            raise UsageError(
                f"{device.name} was measured with {', '.join(map(str, counts)) or 'no'} threads, not with {threads}",
                where="--threads",
                fix=f"measure it: edgecls bench --calibrate --device {device.name} --threads {threads}",
            )
        self._device, self._threads, self._precision, self._budget = device, threads, precision, budget
        self._latencies = _Latencies(device, precision, threads)

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
        if row and self._device.identity == devices.identity_of(facts.bench):
            latency = {"ms": row["median_ms"], "interval": row.get("ci95_ms"), "measured": True}
            latency["sure"] = row["status"] == "ok"
        else:
            latency = _row(self._latencies.predict(executed), measured=False)
        size = run.recipe.model.input_size or catalog.get(run.recipe.model.name).input_size
        peak = max((sum(map(math.prod, (*o.inputs, o.output))) for o in executed), default=0)
        return self._judged(
            {
                "name": f"{run.recipe.name} {run.path.name}",
                "family": catalog.get(run.recipe.model.name).family,
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
    size = _BYTES[precision] * params
    if precision == "int8":
        size += _CHANNEL_BYTES * sum(o.output[-1] for o in executed if o.weights)
        size += _OPERATION_BYTES * len(executed)
    else:
        size += _FLOAT_OPERATION_BYTES * len(executed)
    # A runtime keeps the weights a second time, in the order that its kernels read them.
    memory = _MEMORY_BASE + 2 * size + _BYTES[precision] * peak
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
