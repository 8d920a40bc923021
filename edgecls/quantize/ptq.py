"""Post-training quantization: what a calibrated network gains without a training step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from edgecls.graph import Graph, Op, trace
from edgecls.quantize import control
from edgecls.quantize.layers import Quantize, QuantizedKernel
from edgecls.quantize.quantizers import TINY
from edgecls.quantize.rules.activations import QuantizedLeakyReLU
from edgecls.quantize.rules.gates import ScaledHardSwish, Swish, Table
from edgecls.quantize.rules.norm import FreezableBatchNormalization

Tensor = Any

ACTIVATIONS = (keras.layers.ReLU, QuantizedLeakyReLU, ScaledHardSwish, Swish, Table)
NEWTON = 12  # steps at most
SMALL = 0.01  # deviations of a channel, to find the slope
LEAST_SLOPE = 0.05  # few values that pass make no large move
LARGEST_MOVE = 0.2  # deviations, for each step
ENOUGH = 1e-4  # deviations; nearer means are equal


def correct_biases(model: keras.Model, pixels: Any) -> dict[str, float]:
    """Shift the bias of each linear layer so that the mean of each channel on real images is that of the float network.

    Rounding a kernel moves the mean of each output channel, and later layers see a shifted input (Nagel et al., 2019,
    https://arxiv.org/abs/1906.04721; the means are measured, as in its section 4.2). Layers are corrected in the order
    of computation, so each correction sees those before it.

    The mean is that behind the activation function, where there is one. Before it most values of a channel are often
    such as a ReLU cuts off, and int8 draws them nearer to zero; making up for that would weaken those that it lets through.
    A second call corrects anew: the shifts of the first are taken back before.

    Args:
        model: From ``quantize_model``, calibrated; changed in place.
        pixels: Images as the network takes them, [batch, height, width, channels]. All are in memory at once; some
            tens are enough.

    Returns:
        The largest shift of each layer, by the name of the layer whose bias (or beta) was changed.

    Example:
        >>> from edgecls.quantize import calibrate, quantize_model
        >>> model = edgecls.build_model("MobileNetV3_small_x0_35", classes=3, input_size=32)
        >>> network = quantize_model(model)
        >>> images = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3))
        >>> ranges = calibrate(network, [images])
        >>> "fc" in correct_biases(network, images)
        True
    """
    images = tf.cast(pixels, tf.float32)
    undo_corrections(model)
    graph = trace(model)
    ends, behind = _ends(graph), _activations(graph)
    means: dict[str, Tensor] = {}
    shifts: dict[str, float] = {}

    def measure(layer: Any, inputs: Tensor, outputs: Tensor) -> Tensor:
        means[layer.name] = _channel_means(behind.get(layer.name, tf.identity)(outputs))
        return outputs

    def correct(layer: Any, inputs: Tensor, outputs: Tensor) -> Tensor:
        shift = _shift(outputs, behind.get(layer.name), means.pop(layer.name))
        ends[layer.name].add(shift.numpy())
        shifts[layer.name] = float(tf.reduce_max(tf.abs(shift)))
        return outputs + shift

    with control.fake_quantization(model, on=False):
        run(model, images, ends, measure)
    run(model, images, ends, correct)
    return shifts


def undo_corrections(model: keras.Model) -> None:
    """Take back what ``correct_biases`` has added since the network was made or loaded; nothing if nothing was."""
    for end in _ends(trace(model)).values():
        end.undo()


@contextmanager
def without_corrections(model: keras.Model) -> Iterator[None]:
    """Take back what ``correct_biases`` has added; it is put back if the block fails."""
    ends = list(_ends(trace(model)).values())
    before = [(end.variable.numpy(), getattr(end.layer, "correction", 0.0)) for end in ends]
    undo_corrections(model)
    try:
        yield
    except BaseException:
        for end, (value, correction) in zip(ends, before, strict=True):
            end.variable.assign(value)
            end.layer.correction = correction
        raise


@dataclass(frozen=True)
class _End:
    """The last layer of a linear operation, and the variable that shifts its output."""

    layer: Any
    variable: keras.Variable
    scale: float

    def add(self, shift: np.ndarray) -> None:
        self.layer.correction = shift / self.scale
        self.variable.assign_add(self.layer.correction)

    def undo(self) -> None:
        self.variable.assign_sub(getattr(self.layer, "correction", 0.0))
        self.layer.correction = 0.0


def _ends(graph: Graph) -> dict[str, _End]:
    """Where each linear operation ends: at its kernel, or at the batch normalization behind it."""
    ends = {}
    for op in graph.ops:
        once = graph.calls[op.layer.name] == 1
        if isinstance(op.layer, QuantizedKernel) and once:
            norm = _norm_behind(graph, op)
            layer: Any = norm or op.layer
            variable = layer.beta if norm else layer.bias if layer.use_bias else None
            if variable is not None:
                ends[layer.name] = _End(layer, variable, layer.output_scale)
    return ends


def _activations(graph: Graph) -> dict[str, Any]:
    """The layer of the activation function behind each layer, by its name; there is at most a grid in between."""
    found = {}
    for op in graph.ops:
        users = graph.consumers(op.output)
        if len(users) == 1 and isinstance(users[0].layer, Quantize):
            users = graph.consumers(users[0].output)
        if len(users) == 1 and isinstance(users[0].layer, ACTIVATIONS):
            found[op.layer.name] = users[0].layer
    return found


def _shift(outputs: Tensor, behind: Any, target: Tensor) -> Tensor:
    """What to add to each channel so that its mean behind the activation function is ``target``: Newton's method.

    A channel that this brings no nearer gets nothing: a hard-swish falls before it rises.
    """
    mean = _channel_means(outputs)
    if behind is None:
        return target - mean
    deviation = tf.sqrt(_channel_means((outputs - mean) ** 2)) + TINY
    shift = best = tf.zeros_like(mean)
    mean = _channel_means(behind(outputs))
    least = tf.abs(target - mean)
    for _ in range(NEWTON):
        slope = (_channel_means(behind(outputs + shift + SMALL * deviation)) - mean) / (SMALL * deviation)
        move = (target - mean) / tf.maximum(slope, LEAST_SLOPE)
        shift += tf.clip_by_value(move, -LARGEST_MOVE * deviation, LARGEST_MOVE * deviation)
        mean = _channel_means(behind(outputs + shift))
        nearer = tf.abs(target - mean) < least
        best, least = tf.where(nearer, shift, best), tf.where(nearer, tf.abs(target - mean), least)
        if tf.reduce_all(least <= ENOUGH * deviation):
            break
    return best


def _norm_behind(graph: Graph, op: Op) -> FreezableBatchNormalization | None:
    users = graph.consumers(op.output)
    return users[0].layer if users and isinstance(users[0].layer, FreezableBatchNormalization) else None


def run(
    model: keras.Model, images: Any, names: Container[str], at_end: Callable[[Any, Any, Any], Any]
) -> None:
    """One pass of ``images``; ``at_end(layer, inputs, outputs)`` gives the outputs of the layers called ``names``.

    Args:
        model: From ``quantize_model``.
        images: Images as the network takes them.
        names: Of layers.
        at_end: Takes the first argument of the layer, and what it returns.
    """
    depths = sorted(model._nodes_by_depth, reverse=True)
    nodes = [node for depth in depths for node in model._nodes_by_depth[depth] if not node.is_input]
    readers = Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
    values = {id(model.inputs[0]): images}
    for node in nodes:
        layer = node.operation
        args, kwargs = node.arguments.fill_in(values)
        outputs = layer(*args, **kwargs)
        if layer.name in names:
            outputs = at_end(layer, args[0], outputs)
        values |= zip(map(id, node.outputs), keras.tree.flatten(outputs), strict=True)
        for tensor in node.input_tensors:
            readers[id(tensor)] -= 1
            if not readers[id(tensor)]:
                del values[id(tensor)]  # Keras' own walk keeps all: gigabytes with some tens of images


def _channel_means(values: Tensor) -> Tensor:
    return tf.reduce_mean(values, axis=list(range(len(values.shape) - 1)))
