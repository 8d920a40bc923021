"""What is known of a device: the networks that it has run, one JSON file a device.

A file is in ``<settings>/latency/NAME.json``, see ``folders.config_folder``. ``learn`` adds the results of a bench.json to
it; a newer result replaces the older one of the same network, precision and number of threads, but never a sure one by one
that is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from android_bench.errors import BenchUsageError
from android_bench.folders import config_folder
from android_bench.output.documents import atomic
from android_bench.predict.latency import Array, Measured, Predictor
from android_bench.predict.operations import parse

SCHEMA = "android_bench.latency/1"
_IDENTITY = (
    "cpu",
    "soc_model",
    "platform",
    "cores",
)  # fields of a bench.json's device that tell one from another


@dataclass(frozen=True)
class Figure:
    """One median: milliseconds, its 95 % interval where there is one, peak memory in MiB, and whether to trust it."""

    ms: float
    interval: tuple[float, float] | None = None
    peak_mib: float | None = None
    sure: bool = True


@dataclass(frozen=True)
class Network:
    """A network that was measured in one precision.

    Attributes:
        name: Name of the network's architecture, or of the file.
        series: The family that it belongs to.
        precision: ``fp32``, ``fp16`` or ``int8``.
        input_size: Side of the image, pixels.
        operations: What it executes, of the float network, as text.
        figures: By number of threads.
    """

    name: str
    series: str
    precision: str
    input_size: int
    operations: str
    figures: dict[int, Figure]

    @property
    def key(self) -> tuple[str, str, int]:
        return self.name, self.precision, self.input_size


@dataclass(frozen=True)
class Device:
    """A device with its measured networks.

    Attributes:
        name: What the user calls it.
        about: The device of the bench.json, in a few words.
        runtime: What ran the networks.
        networks: Those that were measured.
        identity: What tells this device from another one of the same name.
    """

    name: str
    about: str = ""
    runtime: str = "TFLite"
    networks: tuple[Network, ...] = ()
    identity: dict[str, Any] = field(default_factory=dict)

    def measured(self, precision: str) -> list[Measured]:
        """The networks of one precision, as a predictor takes them."""
        return [
            Measured(n.name, n.series, tuple(parse(n.operations)), {t: f.ms for t, f in n.figures.items()})
            for n in self.networks
            if n.precision == precision
        ]

    def predictor(self, precision: str, prior: Array | None = None) -> Predictor:
        """Predicts latencies in one precision. Raises BenchError where too few networks were measured."""
        return Predictor(self.measured(precision), prior)

    def figure(self, name: str, precision: str, input_size: int, threads: int) -> Figure | None:
        """What was measured of a network, if it was."""
        for network in self.networks:
            if network.key == (name, precision, input_size):
                return network.figures.get(threads)
        return None


def results_of(
    document: dict[str, Any], network_of: Callable[[dict[str, Any]], Network | None]
) -> Iterable[Network]:
    """The measured networks of a bench.json.

    Args:
        document: Its content.
        network_of: Tells which network a result is of, without figures; None: not known.
    """
    for result in document["results"]:
        if result["status"] == "failed" or not (network := network_of(result)):
            continue
        interval = result.get("ci95_ms")
        figure = Figure(
            result["median_ms"],
            (interval[0], interval[1]) if interval else None,
            result.get("peak_mib"),
            result["status"] == "ok",
        )
        network.figures[result["threads"]] = figure
        yield network


def learn(device: Device, document: dict[str, Any], networks: Iterable[Network]) -> Device:
    """A device that knows newly measured networks, too.

    What was measured on another phone of the same name is forgotten.
    """
    found = document["device"]
    identity = identity_of(document)
    known = device.networks if device.identity == identity else ()
    merged: dict[tuple[str, str, int], Network] = {n.key: n for n in known}
    for new in networks:
        old = merged.get(new.key)
        before = old.figures if old and old.operations == new.operations else {}
        better = {t: f for t, f in new.figures.items() if f.sure or t not in before or not before[t].sure}
        merged[new.key] = replace(new, figures={**before, **better})
    about = " ".join(str(found[key]) for key in ("name", "cpu") if found.get(key))
    return Device(device.name, about, "TFLite", tuple(merged.values()), identity)


def identity_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """What tells the device of a bench.json from others."""
    found = document.get("device") or {}
    return {key: found.get(key) for key in _IDENTITY}


def path_of(name: str) -> Path:
    """The file of a device."""
    return config_folder() / "latency" / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name.lower())}.json"


def known_devices() -> list[str]:
    """The names of the devices that have a file."""
    return sorted(p.stem for p in (config_folder() / "latency").glob("*.json"))


def read(name: str) -> Device | None:
    """The device of a name; None where nothing was measured on it.

    Raises:
        BenchUsageError: Its file cannot be read.
    """
    path = path_of(name)
    try:
        return from_json(name, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchUsageError(
            f"what was measured on {name} cannot be read: {error}", where=str(path), fix="remove the file"
        ) from None


def from_json(name: str, text: str) -> Device:
    """A device as ``to_json`` wrote it. Raises ValueError, KeyError or TypeError for anything else."""
    content = json.loads(text)
    if content["schema"] != SCHEMA:
        raise ValueError(f"schema {content['schema']!r}")
    networks = tuple(map(_network, content["networks"]))
    return Device(name, content["about"], content["runtime"], networks, content["identity"])


def _network(row: dict[str, Any]) -> Network:
    figures = {
        int(threads): Figure(
            f["ms"], tuple(f["interval"]) if f["interval"] else None, f["peak_mib"], f["sure"]
        )
        for threads, f in row["figures"].items()
    }
    return Network(
        row["name"], row["series"], row["precision"], row["input_size"], row["operations"], figures
    )


def to_json(device: Device) -> str:
    """What is known of a device as text."""
    content = {
        "schema": SCHEMA,
        "about": device.about,
        "runtime": device.runtime,
        "identity": device.identity,
        "networks": [
            vars(n) | {"figures": {str(t): vars(f) for t, f in sorted(n.figures.items())}}
            for n in device.networks
        ],
    }
    return json.dumps(content, indent=1) + "\n"


def write(device: Device) -> Path:
    """Keep what is known of a device; whole or not at all.

    Raises:
        BenchUsageError: The file cannot be written.
        DeviceMissing: The disk is full.
    """
    path = path_of(device.name)
    with atomic(path, parents=True) as temporary:
        temporary.write_text(to_json(device), encoding="utf-8")
    return path
