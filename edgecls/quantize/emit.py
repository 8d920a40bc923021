"""Third pass: the plan as a Keras model that trains with the arithmetic of its int8 file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from edgecls.errors import UsageError
from edgecls.graph import remade, trace
from edgecls.precisions import WEIGHT_SCALES
from edgecls.quantize import (
    floats,
    rules,  # noqa: F401  registers them
)
from edgecls.quantize import layers as ql
from edgecls.quantize.control import measure_kernels
from edgecls.quantize.folding import fold_norms
from edgecls.quantize.lower import Size, lower
from edgecls.quantize.plan import Grid, Node, Plan


def make_plan(
    model: keras.Model,
    input_size: Size | None = None,
    keep_float: Sequence[str] = (),
    weights: str = "per_channel",
) -> Plan:
    """What ``quantize_model`` makes of ``model``, to be read: ``print(make_plan(model).text())``.

    Args and errors are those of ``quantize_model``.

    Example:
        >>> model = edgecls.build_model("MobileNetV3_small_x0_35", classes=3, input_size=32)
        >>> make_plan(model).text().splitlines()[1]
        'conv.conv.pad: ZeroPadding2D, on the grid of image'
    """
    if weights not in WEIGHT_SCALES:
        raise UsageError(f"unknown weights {weights!r}", fix=f"use one of {', '.join(WEIGHT_SCALES)}")
    network, kept = lower(model, input_size, keep_float)
    graph = trace(network)
    kept = floats.kept_names(model, graph, kept, keep_float)
    per_channel = weights == "per_channel"
    if not per_channel:
        graph = trace(fold_norms(network, kept))
    return Plan(graph, kept, per_channel)


def quantize_model(
    model: keras.Model,
    input_size: Size | None = None,
    keep_float: Sequence[str] = (),
    weights: str = "per_channel",
) -> keras.Model:
    """The quantization-aware twin of a float network, with its weights.

    Layers keep their names, kernels their scale, so optimizers and learning rates carry over. Call ``calibrate`` on
    the result before anything else: the ranges of its activations are not set. Then it can be trained with ``compile``
    and ``fit`` like any model.

    Args:
        model: A functional or Sequential Keras 3 network from images [batch, height, width, channels] to logits or
            probabilities. If it begins by normalizing (``Normalize``, ``Rescaling``, ``Normalization``), its images
            are pixels from 0 to 255.
        input_size: Height and width for a network that leaves them open, or one number for both.
        keep_float: Names of layers or of nested models that stay in float, or shell patterns such as ``"block_1_*"``.
            A batch normalization and an activation behind such a layer stay with it.
        weights: ``"per_channel"``: a scale for each output channel of a kernel. ``"per_tensor"``: one for all, as some
            accelerators want it; it costs accuracy. Then batch normalizations are folded into the kernels at once,
            because one scale has to be that of the folded kernel, and training does not see them.

    Returns:
        A functional model of serialisable layers with the same inputs and outputs. Nested models are inlined, dropout
        and random augmentation are left out, sums of branches are fused.

    Raises:
        UsageError: A layer has no rule; the text names it and what to do. Or ``weights`` is unknown.

    Example:
        >>> model = edgecls.build_model("MobileNetV3_small_x0_35", classes=3, input_size=32)
        >>> network = quantize_model(model)
        >>> network.get_layer("conv.conv").__class__.__name__
        'QuantizedConv2D'
    """
    network = emit(make_plan(model, input_size, keep_float, weights), model.name)
    measure_kernels(network)
    return network


def emit(plan: Plan, name: str) -> keras.Model:
    """The twin that ``plan`` describes, with the weights of the float network."""
    twins = _Twins()
    for node in plan.nodes:
        twins.add(node)
    outputs = [twins.tensors[node] for node in plan.outputs]
    one = len(twins.inputs) == len(outputs) == 1
    return keras.Model(*((twins.inputs[0], outputs[0]) if one else (twins.inputs, outputs)), name=name)


class _Twins:
    """The layers and tensors of the twin, by the nodes of the plan."""

    def __init__(self) -> None:
        self.inputs: list[Any] = []
        self.tensors: dict[Node, Any] = {}
        self._in_float: dict[Node, Any] = {}  # before they are put on a grid
        self._layers: dict[str, Any] = {}
        self._grids: dict[Grid, ql.Quantize] = {}

    def add(self, node: Node) -> None:
        """Compute ``node``, and put it on its grid."""
        if not node.inputs:
            self.tensors[node] = keras.Input(name=node.name, **node.config)
            self.inputs.append(self.tensors[node])
        else:
            self.tensors[node] = self._compute(node)
            if node.in_float:
                self._in_float[node] = self.tensors[node]
        if node.grid and (not node.passes or node.again):
            self.tensors[node] = self._put_on_grid(node, node.grid.root)

    def _compute(self, node: Node) -> Any:
        known_in_float = self._in_float if node.in_float else {}
        inputs = [known_in_float.get(source, self.tensors[source]) for source in node.inputs]
        known = node.name in self._layers
        if not known:
            self._layers[node.name] = _made(node)
        layer = self._layers[node.name]
        tensor = layer(inputs[0] if len(inputs) == 1 else inputs)
        if node.source is not None and not known:
            _take_weights(layer, node.source)
        return tensor

    def _put_on_grid(self, node: Node, grid: Grid) -> Any:
        if grid not in self._grids:
            options = {"width": grid.width} if grid.width else {}
            self._grids[grid] = ql.Quantize(
                grid.fixed,
                grid.floor,
                headroom=grid.headroom,
                symmetric=grid.symmetric,
                members=len(grid.nodes),
                name=f"{grid.nodes[0].name}.quant",
                **options,
            )
        member = None if node.passes else grid.nodes.index(node)
        quantizer, tensor = self._grids[grid], self.tensors[node]
        if node.in_float:
            tensor = floats.Boundary(name=f"{node.name}.leave")(tensor)
        return quantizer(tensor) if member == 0 else quantizer(tensor, member=member)


def _made(node: Node) -> Any:
    """The layer of ``node``."""
    if type(node.source) is node.kind:
        return remade(node.source, **node.config, name=node.name)
    return node.kind.from_config({**node.config, "name": node.name})  # type: ignore[attr-defined]


def _take_weights(layer: Any, source: Any) -> None:
    """Give ``layer`` the weights of ``source``. A layer made of layers has several of one name."""
    if type(layer) is type(source):
        pairs = list(zip(layer.variables, source.variables, strict=True))
    else:
        named = {variable.path.split("/")[-1]: variable for variable in layer.variables}
        pairs = [(named[variable.path.split("/")[-1]], variable) for variable in source.variables]
    for target, variable in pairs:
        target.assign(variable.value)
