"""The stages of a network: stem, 1, 2, ... and the head. Learning rates, freezing and features go by them.

The stem comes before the first stage; some networks have none (VGG). The head is what comes after the last feature
map: pooling and the classifier with all that belongs to it. A network of the zoo has the stages of its paper; its
family's file marks where each ends, and ``edgecls.model_info(name).stages`` has their last layers. A stage is then
what its last layers are computed from, without the stages before. So a copy of a network has the same stages, if the
layers kept their names: one that was saved and loaded, fused or quantized, or has another head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import keras

from edgecls.errors import UsageError
from edgecls.flattening import behind
from edgecls.graph import Graph, trace
from edgecls.weights.load import classifiers
from edgecls.zoo import catalog
from edgecls.zoo.entry import HEAD
from edgecls.zoo.state import state_name

Ends = Mapping[str, Sequence[str]]
"""Stages, or other groups of layers, in order, to the layers that each ends with."""


def stages_of(model: keras.Model) -> dict[str, list[keras.Layer]]:
    """See ``edgecls.stages``."""
    graph, entry = trace(model), catalog.find(model.name)
    if entry:
        return _divided(graph, _present(model, graph, entry.stages))
    divided = _divided(graph, _by_size(model, graph))
    tokens = [e.name for e in divided[HEAD] if e.weights and len(getattr(e.output, "shape", ())) == 3]
    if tokens:
        raise UsageError(
            f"cannot tell the stages of this network: {tokens[0]!r} computes no feature map",
            where=model.name,
            fix="take one of the zoo, or leave its stages alone",
        )
    return divided


def lr_groups_of(model: keras.Model) -> dict[str, list[keras.Layer]]:
    """The groups of layers that PaddleClas' ``lr_mult_list`` has, and the head: the stages, but in MobileNetV3."""
    entry = catalog.find(model.name)
    if entry is None or not entry.lr_groups:
        return stages_of(model)
    graph = trace(model)
    return _divided(graph, _present(model, graph, entry.lr_groups))


def _present(model: keras.Model, graph: Graph, ends: Ends) -> Ends:
    """``ends`` with names as this copy of the network has them.

    Where a layer became several, as in quantization, the names of the parts begin with its name.
    """
    names = [op.layer.name for op in graph.ops]
    found: dict[str, list[str]] = {stage: [] for stage in ends}
    for stage, layers in ends.items():
        for end in layers:
            parts = [end] if end in names else [name for name in names if name.startswith(f"{end}.")]
            if not parts:
                raise UsageError(
                    f"stage {stage} ends with a layer {end}, and there is none of this name",
                    where=model.name,
                    fix="give a network whose layers have their names and which has all of its stages",
                )
            found[stage].append(parts[-1])
    return found


def _by_size(model: keras.Model, graph: Graph) -> Ends:
    """Stages of a network that is not of the zoo: what halves the image once is the stem, and each next halving a stage."""
    maps = [
        (op.layer.name, op.layer.output) for op in graph.ops if op.inputs and graph.calls[op.layer.name] == 1
    ]
    scores = {name for layer in _classifiers(model) for name in (layer.name, *behind(model, layer))}
    maps = [(name, x) for name, x in maps if name not in scores]  # a convolution may make them, before a pool
    maps = [(name, x.shape) for name, x in maps if isinstance(x, keras.KerasTensor) and len(x.shape) == 4]
    size = model.inputs[0].shape[1] if len(model.inputs) == 1 and len(model.inputs[0].shape) == 4 else None
    last: dict[int, str] = {}
    for name, shape in maps if size else ():
        if shape[1] and shape[1] > 1:
            last[max(1, round(math.log2(size / shape[1])))] = name
    if not last or any(isinstance(op.layer, keras.Model) for op in graph.ops):
        raise UsageError(
            "cannot tell the stages of this network",
            where=model.name,
            fix="take one of the zoo, or one with a fixed image size that is not nested in another model",
        )
    return {str(i) if i else "stem": [last[halvings]] for i, halvings in enumerate(sorted(last))}


def _classifiers(model: keras.Model) -> list[keras.Layer]:
    names = classifiers(model)
    return [layer for layer in model.layers if state_name(layer) in names]


def _divided(graph: Graph, ends: Ends) -> dict[str, list[keras.Layer]]:
    """The layers of each group in the order of the graph; what no group ends with is the head."""
    sources: dict[str, set[str]] = {}
    for op in graph.ops:
        sources.setdefault(op.layer.name, set()).update(name for name, _, _ in op.inputs)
    stage_of: dict[str, str] = {}
    for stage, layers in ends.items():
        open_layers = list(layers)
        while open_layers:
            name = open_layers.pop()
            if name not in stage_of:
                stage_of[name] = stage
                open_layers += sources[name]
    result: dict[str, list[keras.Layer]] = {stage: [] for stage in (*ends, HEAD)}
    for op in graph.ops:
        if op.call == 0 and isinstance(op.layer, keras.Layer):
            result[stage_of.get(op.layer.name, HEAD)].append(op.layer)
    return result
