"""What is known of latency on a device: networks that were measured or published, predictions for all others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from android_bench.errors import BenchError
from android_bench.predict import device as devices
from android_bench.predict.device import Device, Figure, Network
from android_bench.predict.latency import RUNTIME_REACH, Prediction, Predictor
from android_bench.predict.least_squares import Array
from android_bench.predict.operations import Operation, parse, rescale
from android_bench.predict.short_list import most_telling
from edgecls.errors import MissingError, UsageError
from edgecls.zoo import catalog
from edgecls.zoo.entry import Entry
from edgecls.zoo.operations import operations

PUBLISHED = "sd855"
"""The device whose published latencies are built in: Paddle-Lite on a Snapdragon 855, fp32."""
CALIBRATION = 10
CLASSES = 1000  # of what is measured and published
BYTES = {"fp32": 4, "int8": 1}
_RUNTIME = "Paddle-Lite"
_DOUBTFUL = ("ShuffleNetV2_swish", "ShuffleNetV2_x2_0_v1")
"""Names with the latency of ShuffleNetV2_x2_0, which is not theirs: the first takes a third of it on two threads."""
_CALIBRATION_WEIGHTS = 25e6  # more take long to send to a phone
_CALIBRATION_MS = 120.0  # on a Snapdragon 855, fp32, one thread


def find_device(name: str) -> Device:
    """A device by its name, or as a bench.json tells of it.

    Raises:
        MissingError: Nothing was measured on it.
        UsageError: The bench.json has no network of the catalog.
    """
    if name.endswith(".json"):
        from android_bench.output.documents import read_json

        document = read_json(name)
        networks = list(_networks(document))
        if not networks:
            raise UsageError(
                "no network of the zoo was measured on the CPU in it",
                where=f"--device {name}",
                fix="edgecls bench --zoo or --calibrate measures some; a run's own figures come with --run",
            )
        return devices.learn(Device(name), document, networks)
    if found := devices.read(name):
        return found
    if name.lower() == PUBLISHED:
        return published()
    known = ", ".join(dict.fromkeys([*devices.known_devices(), PUBLISHED]))
    raise MissingError(
        f"nothing was measured on {name!r}, only on {known}",
        fix=f"measure ten networks on it: edgecls bench --calibrate --device {name}",
    )


def bench_name(device: Device) -> str:
    """What ``edgecls bench --device`` takes to measure more on a device; a bench.json does not tell.

    Example:
        >>> bench_name(Device("myphone")), bench_name(Device("sent/bench.json"))
        ('myphone', 'NAME')
    """
    return "NAME" if device.name.endswith(".json") else device.name


@cache
def published() -> Device:
    """A Snapdragon 855 with the latencies that PaddleClas publishes."""
    found: dict[str, Network] = {}
    for entry in map(catalog.get, catalog.names()):
        if entry.sd855_ms and entry.architecture not in found and entry.name not in _DOUBTFUL:
            figures = {threads: Figure(ms) for threads, ms in entry.sd855_ms.items()}
            found[entry.architecture] = replace(network_of(entry, "fp32"), figures=figures)
    return Device(PUBLISHED, "Snapdragon 855, as published", _RUNTIME, tuple(found.values()))


def prior_of(device: Device, precision: str) -> Array | None:
    """Coefficients for a predictor to lean on: for int8 the device's own of fp32, else those of the published device."""
    if device.runtime == _RUNTIME:
        return None
    known = published().predictor("fp32").coefficients
    if precision == "fp32":
        return known
    try:
        return device.predictor("fp32", known).coefficients
    except BenchError:  # too few networks were measured in fp32
        return known


def network_of(entry: Entry, precision: str) -> Network:
    """A catalog network without figures."""
    kept = operations(entry.name)
    text = kept.text.replace("N", str(CLASSES))
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
    if not networks:
        return None
    old = devices.read(device) or Device(device)
    return devices.write(devices.learn(old, dict(document), networks))


def _networks(document: Mapping[str, Any]) -> Iterator[Network]:
    """The catalog's networks that a bench.json has figures of."""

    def network(result: dict[str, Any]) -> Network | None:
        precision = Path(str(result["model"])).name.removesuffix(".tflite").rpartition("_")[2]
        if precision not in BYTES or not result.get("network") or result.get("delegate", "cpu") != "cpu":
            return None
        return network_of(catalog.get(result["network"]), precision)

    yield from devices.results_of(dict(document), network)


class Latencies:
    """Latencies in one precision on one device: measured, or else predicted.

    A network that was measured at another size or with other classes is predicted from its own figure: the predictor
    only tells by what factor the change changes it.
    """

    def __init__(self, device: Device, precision: str, threads: int) -> None:
        self._device, self._precision, self._threads = device, precision, threads
        self._missing: BenchError | None = None
        self._predictor: Predictor | None = None
        self._derived = False
        for found in dict.fromkeys((precision, "fp32")):
            try:
                predictor = device.predictor(found, prior_of(device, found))
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
            return row_of(self.predict(executed), measured=False)
        if (size, classes) == (usual, CLASSES) or (size == usual and not self._predictor):
            return {"ms": figure.ms, "interval": figure.interval, "measured": True, "sure": figure.sure}
        changed, before = self.predict(executed), self.predict(parse(usual_text, CLASSES), check=False)
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


def row_of(prediction: Prediction, *, measured: bool) -> dict[str, Any]:
    return {"ms": prediction.ms, "interval": prediction.interval, "measured": measured, "sure": True}
