"""Ranges of activations from real pixels, before a single training step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from edgecls.errors import UsageError
from edgecls.precisions import CALIBRATIONS
from edgecls.quantize import control
from edgecls.quantize.layers import Quantize
from edgecls.quantize.quantizers import STEPS

BINS = 2048
SHRINKS = np.linspace(1.0, 0.3, 71)  # candidates for an end of a range, as fractions of the extreme


def calibrate(
    model: keras.Model, batches: Iterable[Any], method: str = "mse"
) -> dict[str, tuple[float, float]]:
    """Set the range of every activation from the values that the network computes on real images without rounding.

    Args:
        model: From ``quantize_model``.
        batches: Pixels [batch, size, size, 3], or tuples that begin with them. They are read twice; an iterator is
            kept in memory.
        method: ``"minmax"`` takes the extremes, ``"percentile"`` leaves out 0.01 % at either end, ``"mse"`` takes the
            range with the least squared error of rounding and clipping.

    Returns:
        ``{quantizer name: (low, high)}``.

    Raises:
        UsageError: There is no batch, or the method is unknown, or a value is not finite; or images have another size
            than the network's, or lie between 0 and 1 where it normalizes pixels from 0 to 255.

    Example:
        >>> from edgecls.quantize import quantize_model
        >>> model = edgecls.build_model("MobileNetV3_small_x0_35", classes=3, input_size=32)
        >>> network = quantize_model(model)
        >>> ranges = calibrate(network, [np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3))])
        >>> low, high = ranges["fc.quant"]
    """
    if method not in CALIBRATIONS:
        raise UsageError(
            f"unknown calibration method {method!r}", fix=f"use one of {', '.join(CALIBRATIONS)}"
        )
    if iter(batches) is batches:
        batches = list(batches)
    layers = control.quantizers(model)
    extremes = np.array([np.inf, -np.inf]) * np.ones((len(layers), 1))
    measure = _probe(model, lambda _, x: tf.stack([tf.reduce_min(x), tf.reduce_max(x)]))
    brightest = 0.0
    for pixels in pixels_of(batches):
        brightest = max(brightest, _checked(model, pixels))
        for seen, members in zip(extremes, measure(pixels), strict=True):
            seen[:] = min(seen[0], members[:, 0].min()), max(seen[1], members[:, 1].max())
    if not np.isfinite(extremes).all():
        raise UsageError("calibration saw no image, or values that are not finite", where=model.name)
    if brightest <= 1.0 and control.takes_pixels(model):
        raise UsageError(
            "images from 0 to 1, and the network normalizes pixels from 0 to 255 itself",
            where=model.name,
            fix="calibrate with pixels as they are in a photo",
        )
    wide = extremes * np.array([[layer.quantizer.headroom] for layer in layers])
    ends = [layer.quantizer.clipped(*extreme) for layer, extreme in zip(layers, wide, strict=True)]
    limits = {layer.name: (float(low), float(high)) for layer, (low, high) in zip(layers, ends, strict=True)}
    if method != "minmax":
        histograms = np.zeros((len(layers), BINS), np.int64)
        measure = _probe(model, lambda layer, x: tf.histogram_fixed_width(x, limits[layer.name], BINS))
        for pixels in pixels_of(batches):
            histograms += np.stack([members.sum(0) for members in measure(pixels)])
        choose = _percentile if method == "percentile" else _least_error
        for layer, histogram in zip(layers, histograms, strict=True):
            if layer.quantizer.headroom == 1.0:
                symmetric = layer.quantizer.grid_is_symmetric
                limits[layer.name] = choose(histogram, *limits[layer.name], symmetric)
    for layer in layers:
        layer.set_range(*limits[layer.name])
    return {layer.name: layer.range for layer in layers}


def pixels_of(batches: Iterable[Any]) -> Iterable[Any]:
    """The pixels of batches that may be tuples which begin with them."""
    return (batch[0] if isinstance(batch, tuple | list) else batch for batch in batches)


def _checked(model: keras.Model, pixels: Any) -> float:
    """The largest value of a batch that the network can take."""
    shape, wanted = tuple(np.shape(pixels)), tuple(model.input_shape[1:])
    if shape[1:] != wanted:
        raise UsageError(
            f"calibration images of shape {shape}, and the network takes [batch, {', '.join(map(str, wanted))}]",
            where=model.name,
            fix="resize them",
        )
    return float(np.max(pixels)) if np.size(pixels) else 0.0


def _probe(model: keras.Model, statistic: Any) -> Any:
    """A function from pixels to ``statistic(layer, tensor)`` of the tensors on each grid, [tensors, ...]."""

    @tf.function(reduce_retracing=True)
    def measure(pixels: Any) -> list[Any]:
        found: dict[str, list[Any]] = {}

        def probe(layer: Quantize, tensor: Any) -> None:
            found.setdefault(layer.name, []).append(statistic(layer, tensor))

        layers = control.quantizers(model)
        with control.fake_quantization(model, on=False):
            try:
                for layer in layers:
                    layer.probe = probe
                model(pixels, training=False)
            finally:
                for layer in layers:
                    layer.probe = None
        return [tf.stack(found[layer.name]) for layer in layers]

    return lambda pixels: [np.asarray(x) for x in measure(tf.cast(pixels, tf.float32))]


def _percentile(
    histogram: np.ndarray, low: float, high: float, symmetric: bool, outside: float = 1e-4
) -> tuple[float, float]:
    """The range but for so much at either end; ``symmetric`` is up to the grid, which takes the farther end."""
    edges = np.linspace(low, high, BINS + 1)
    below = np.concatenate([[0.0], np.cumsum(histogram) / histogram.sum()])
    first = int(np.searchsorted(below, outside, "right")) - 1
    last = int(np.searchsorted(below, 1 - outside, "left"))
    return float(edges[max(first, 0)]), float(edges[min(last, BINS)])


def _least_error(histogram: np.ndarray, low: float, high: float, symmetric: bool) -> tuple[float, float]:
    """The range whose 8-bit grid has the least squared error; found for one end after the other, twice.

    The ends of a symmetric one move together.
    """
    centers = low + (np.arange(BINS) + 0.5) * (high - low) / BINS
    weights = histogram / histogram.sum()

    def error(candidate: tuple[float, float]) -> float:
        step = (candidate[1] - candidate[0]) / STEPS
        clipped = np.clip(centers, *candidate)
        return float(weights @ ((clipped - centers) ** 2 + (clipped == centers) * step**2 / 12))

    best = (low, high)
    if symmetric:
        return min(((low * s, high * s) for s in SHRINKS), key=error)
    for _ in range(2):
        best = min(((best[0], high * s) for s in SHRINKS), key=error)
        best = min(((low * s, best[1]) for s in SHRINKS), key=error)
    return best
