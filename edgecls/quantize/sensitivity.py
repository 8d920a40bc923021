"""What each layer costs when it alone is int8, all others in float."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from edgecls.graph import Graph, Op, trace
from edgecls.quantize import control
from edgecls.quantize import layers as ql

SHOWN = 30  # layers in the plot
NEVER = 200.0  # dB: of no noise at all


@dataclass(frozen=True)
class Layer:
    """A layer with its share in the loss.

    Attributes:
        layer: Its name, which ``keep_float`` takes.
        kind: Its class in the twin.
        sqnr_db: Power of the float logits over that of their error, in dB: a low figure is bad.
        agreement: Share of images that are answered as in float.
        keepable: The float network has a layer of that name; else the quantization has added it.
    """

    layer: str
    kind: str
    sqnr_db: float
    agreement: float
    keepable: bool


def measure(
    model: keras.Model,
    batches: Sequence[np.ndarray],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Layer]:
    """Round one layer after the other to int8, kernel and output, and compare the logits with those of float.

    Args:
        model: From ``quantize_model``, calibrated and not finalized, up to its logits.
        batches: Images as the network takes them.
        progress: Called with (done, all).

    Returns:
        All layers, the worst first.

    Example:
        >>> from edgecls.quantize import calibrate, quantize_model
        >>> model = edgecls.build_model("MobileNetV3_small_x0_35", classes=3, input_size=32)
        >>> network = quantize_model(model)
        >>> images = [np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3))]
        >>> ranges = calibrate(network, images)
        >>> rows = measure(network, images)
        >>> rows[0].sqnr_db <= rows[-1].sqnr_db
        True
    """
    parts = groups(trace(model))
    rows = []
    with control.fake_quantization(model, on=False):
        expected = _logits(model, batches)
        for done, (name, (kind, members)) in enumerate(parts.items()):
            for layer in members:
                layer.enabled = True
            found = _logits(model, batches)
            for layer in members:
                layer.enabled = False
            same = float(np.mean(found.argmax(1) == expected.argmax(1)))
            rows.append(Layer(name, kind, sqnr(expected, found), same, not name.endswith(ADDED)))
            progress(done + 1, len(parts))
    return sorted(rows, key=lambda row: (row.sqnr_db, row.layer))


ADDED = (".rescale", ".identity", ".copy", ".part", ".leave")  # endings of what only the twin has


def groups(graph: Graph) -> dict[str, tuple[str, list[Any]]]:
    """The class and the layers with a switch of each operation of the file, by the name of its first layer."""
    found: dict[str, tuple[str, list[Any]]] = {}
    for op in graph.ops:
        first = _first(graph, op) if isinstance(op.layer, ql.Quantize) else op
        if isinstance(op.layer, ql.QuantizedKernel) or (
            isinstance(op.layer, ql.Quantize) and not op.layer.fixed
        ):
            _, members = found.setdefault(first.layer.name, (_kind(first), []))
            members.append(op.layer)
    return found


def _first(graph: Graph, grid: Op) -> Op:
    """The first layer of the operation that ends in ``grid``: a kernel, or what the grid rounds."""
    op = last = graph.makers[grid.inputs[0]]
    while len(op.inputs) == 1 and not isinstance(op.layer, ql.QuantizedKernel):
        before = graph.makers[op.inputs[0]]
        if isinstance(before.layer, ql.Quantize | keras.layers.InputLayer):
            return last
        op = before
    return op


def _kind(op: Op) -> str:
    return type(op.layer).__name__.removeprefix("Quantized")


def sqnr(expected: np.ndarray, found: np.ndarray) -> float:
    """Signal-to-quantization-noise ratio in dB, at most ``NEVER``."""
    noise = float(np.mean((found - expected) ** 2))
    signal = float(np.mean(expected**2))
    return NEVER if noise == 0 else min(NEVER, float(10 * np.log10(max(signal, 1e-30) / noise)))


def _logits(model: keras.Model, batches: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(model(batch, training=False)) for batch in batches])


def plot(rows: Sequence[Layer], title: str) -> str:
    """The worst layers as an SVG."""
    from matplotlib.figure import Figure

    shown = rows[:SHOWN]
    figure = Figure(figsize=(7, 1 + 0.22 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.barh([row.layer for row in shown], [row.sqnr_db for row in shown], color="#4c72b0")
    axes.invert_yaxis()
    axes.set_xlabel("signal to noise of the logits if the layer alone is int8, dB (low is bad)")
    axes.set_title(f"{title}: the {len(shown)} most sensitive of {len(rows)} layers")
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
