"""How well latencies are predicted: writes the tables of docs/choose.md.

    python scripts/verify_predictor.py [--host DEVICE]

Three checks: the published latencies of a Snapdragon 855, each network and each family left out; twelve points of TFLite
on the same chip, to which nothing was fitted; and this computer, as `edgecls bench --zoo ... --device host` measured it
(kept in docs/choose.json, --host takes them anew from the device's file).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import marked
import numpy as np

from android_bench.predict import device as devices
from android_bench.predict.device import Device
from android_bench.predict.latency import RUNTIME_REACH, Measured, Prediction, Predictor
from android_bench.predict.operations import parse
from edgecls.workflow import choosing, latencies
from edgecls.zoo import catalog
from edgecls.zoo.operations import operations

DOCS = Path(__file__).parents[1] / "docs"
PAGE, HOST = DOCS / "choose.md", DOCS / "choose.json"
BEGIN, END = "<!-- scripts/verify_predictor.py writes from here -->", "<!-- to here -->"

# TFLite on a Pixel 4 (Snapdragon 855), 4 threads, as published with EfficientNet-Lite and MobileNetV1: fp32, int8, ms.
TFLITE = {
    "EfficientNetLite0": (12.0, 6.5),
    "EfficientNetLite1": (18.0, 9.1),
    "EfficientNetLite2": (26.0, 12.0),
    "EfficientNetLite3": (41.0, 18.0),
    "EfficientNetLite4": (76.0, 30.0),
    "MobileNetV1": (14.0, 5.0),
}
TFLITE_THREADS = 4

FEWEST = 4  # networks of the list that must have been measured
GROUPS: dict[str, Callable[[Measured], str]] = {"network": lambda m: m.name, "family": lambda m: m.series}


def main() -> int:
    """Write the page, or print what does not hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", metavar="DEVICE", help="take the figures of this computer from this device")
    name = parser.parse_args().host
    if name:
        found = devices.read(name)
        if found is None:
            sys.exit(f"nothing was measured on {name!r}: edgecls bench --zoo PATTERN --device {name}")
        HOST.write_text(devices.to_json(found), encoding="utf-8")
    blocks = [*published_block(), *tflite_block()]
    if HOST.exists():
        blocks += host_block(devices.from_json("host", HOST.read_text(encoding="utf-8")))
    text = "\n".join(blocks)
    marked.rewrite(PAGE, BEGIN, END, f"\n{text}\n")
    print(text)
    return 0


def errors(predictor: Predictor, threads: int, group: str) -> np.ndarray:
    """Relative errors, each network predicted without its group."""
    return np.expm1(predictor.left_out(threads, GROUPS[group]))


def covered(measured: Sequence[Measured], threads: int, group: str, prior: np.ndarray | None) -> float:
    """Share of the networks whose latency is in the interval that the other groups give."""
    hits = []
    for label in dict.fromkeys(map(GROUPS[group], measured)):
        rest = Predictor([m for m in measured if GROUPS[group](m) != label], prior)
        for network in measured:
            if GROUPS[group](network) == label and threads in network.ms:
                hits.append(
                    within(rest.predict(network.operations, threads, check=False), network.ms[threads])
                )
    return float(np.mean(hits))


def within(prediction: Prediction, ms: float) -> bool:
    """Whether a latency is in the interval."""
    return prediction.interval[0] <= ms <= prediction.interval[1]


def accuracy_rows(measured: Sequence[Measured], prior: np.ndarray | None, what: str) -> Iterator[list[str]]:
    """For each number of threads: mean and worst error, and the share in the interval, by what was left out."""
    predictor = Predictor(measured, prior)
    for threads in predictor.threads:
        cells = []
        for group in GROUPS:
            found = np.abs(errors(predictor, threads, group))
            cells += [
                f"{found.mean():.1%}",
                f"{found.max():.0%}",
                f"{covered(measured, threads, group, prior):.0%}",
            ]
        reach = np.expm1(predictor.spread(threads))
        yield [what, str(threads), str(len(measured)), *cells, f"±{reach:.0%}"]


ACCURACY = (
    "", "threads", "networks", "without the network: mean error", "worst", "in the interval",
    "without its family: mean error", "worst", "in the interval", "typical interval",
)  # fmt: skip


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines).replace("%", " %").replace("  %", " %")


def published_block() -> list[str]:
    """The Snapdragon 855 as published."""
    measured = latencies.published().measured("fp32")
    families = len({m.series for m in measured})
    return [
        "### The published latencies of a Snapdragon 855",
        "",
        f"Paddle-Lite, fp32, {len(measured)} networks of {families} families. Each was predicted from the others.",
        "",
        table(ACCURACY, accuracy_rows(measured, None, "Paddle-Lite, fp32")),
        "",
    ]


def tflite_rows() -> Iterator[tuple[str, str, float, Prediction]]:
    """Network, precision, published milliseconds and prediction of the twelve points."""
    predictor = latencies.published().predictor("fp32")
    for name, (fp32, int8) in TFLITE.items():
        executed = parse(operations(name).text)
        for precision, ms, predict in (
            ("fp32", fp32, predictor.predict),
            ("int8", int8, predictor.predict_int8),
        ):
            yield name, precision, ms, predict(executed, TFLITE_THREADS).widened(RUNTIME_REACH)


def tflite_block() -> list[str]:
    """TFLite on the same chip."""
    found = list(tflite_rows())
    inside = sum(within(p, ms) for _, _, ms, p in found)
    ratios = {kind: [ms / p.ms for _, k, ms, p in found if k == kind] for kind in ("fp32", "int8")}
    spans = ", ".join(f"{kind} {min(r):.2f} to {max(r):.2f}" for kind, r in ratios.items())
    rows = [
        [name, precision, f"{ms:g}", f"{p.ms:.1f}", f"{p.interval[0]:.1f} to {p.interval[1]:.1f}", "yes" if within(p, ms) else "**no**"]
        for name, precision, ms, p in found
    ]  # fmt: skip
    return [
        "### TFLite on the same chip",
        "",
        f"Twelve latencies on a Pixel 4 with {TFLITE_THREADS} threads, to which nothing was fitted: {inside} of {len(found)} are in "
        f"the interval. Measured / predicted: {spans}.",
        "",
        table(("network", "precision", "measured, ms", "predicted, ms", "interval, ms", "inside"), rows),
        "",
    ]


def host_block(host: Device) -> list[str]:
    """This computer, with our own files."""
    rows, short = [], []
    chosen = set(latencies.calibration_list())
    for precision in ("fp32", "int8"):
        measured, prior = host.measured(precision), latencies.prior_of(host, precision)
        if len(measured) < FEWEST:
            continue
        rows += accuracy_rows(measured, prior, f"TFLite, {precision}")
        short += calibrated_rows(measured, chosen, prior, precision)
    return [
        "### A computer, measured with `edgecls bench --zoo`",
        "",
        f"{host.about}; our own files with XNNPACK. {trusted(host)}",
        "",
        table(ACCURACY, rows),
        "",
        *([table(CALIBRATED, short), ""] if short else []),
        *footprint_block(host),
    ]


def trusted(host: Device) -> str:
    """How far the measurements themselves go."""
    figures = [figure for network in host.networks for figure in network.figures.values()]
    unsure = sum(not figure.sure for figure in figures)
    widths = [
        (figure.interval[1] - figure.interval[0]) / 2 / figure.ms for figure in figures if figure.interval
    ]
    return (
        f"{unsure} of the {len(figures)} latencies were marked unsure, because other programs ran; their own 95 % intervals "
        f"are ±{100 * np.median(widths):.0f} % (median), and a prediction cannot be expected to be nearer."
    )


CALIBRATED = ("", "threads", "measured", "predicted", "mean error", "worst", "in the interval")


def calibrated_rows(
    measured: Sequence[Measured], chosen: set[str], prior: np.ndarray | None, what: str
) -> Iterator[list[str]]:
    """All networks that are not on the list of --calibrate, predicted from those that are."""
    known = [m for m in measured if m.name in chosen]
    others = [m for m in measured if m.name not in chosen]
    if len(known) < FEWEST or not others:
        return
    predictor = Predictor(known, prior)
    for threads in predictor.threads:
        found = [(predictor.predict(m.operations, threads, check=False), m.ms[threads]) for m in others]
        wrong = np.abs([p.ms / ms - 1 for p, ms in found])
        inside = np.mean([within(p, ms) for p, ms in found])
        yield [
            f"calibrated, {what}", str(threads), str(len(known)), str(len(others)), f"{wrong.mean():.1%}",
            f"{wrong.max():.0%}", f"{inside:.0%}",
        ]  # fmt: skip


def footprint_block(host: Device) -> list[str]:
    """Peak memory, estimated against measured."""
    rows = []
    for precision in ("fp32", "int8"):
        ratios = []
        for network in host.networks:
            peaks = [f.peak_mib for f in network.figures.values() if f.peak_mib]
            if network.precision != precision or not peaks:
                continue
            peak = catalog.get(network.name).peak_activations
            estimate = choosing.footprint(parse(network.operations), precision, peak)["memory_mib"]
            ratios.append(estimate / min(peaks))
        if ratios:
            rows.append(
                [
                    precision,
                    str(len(ratios)),
                    f"{np.mean(ratios):.2f}",
                    f"{min(ratios):.2f}",
                    f"{max(ratios):.2f}",
                ]
            )
    header = ("peak memory, estimated / measured", "networks", "mean", "least", "most")
    return [table(header, rows), ""] if rows else []


if __name__ == "__main__":
    sys.exit(main())
