"""The arrays of an exported program as a network's state, found by the structure of the two graphs (``program``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import keras
import numpy as np
from keras import layers

from edgecls.weights import program
from edgecls.weights.readers import State
from edgecls.zoo import state as states

# What the arrays of a node are in the state, by part; and arrays of the state that follow from them.
Place = tuple[dict[str, str], State]


def state_of(
    model: keras.Model, ops: Iterable[program.Op], arrays: State, classifier: bool
) -> tuple[State, dict[str, float]]:
    """Arrays of a program by the network's state names.

    Exporters may fold a batch normalization into the convolution before it. Ours then gets the convolution's bias for
    its own, and changes nothing else.

    Args:
        model: The network.
        ops: The program's operations, as ``formats.PROGRAMS`` reads them.
        arrays: The program's arrays by its own names.
        classifier: Whether the network ends in a classifier, whose class count may be another one.

    Returns:
        The state, with the arrays that were not found under their own names; and factors by state name, which dropouts
        multiply the features of a kernel by.
    """
    theirs = program.nodes(ops, arrays)
    pairs, places = max(
        (_matched(model, theirs, folded, classifier) for folded in (False, True)),
        key=lambda found: len(found[0]) / max(len(found[1]), 1),
    )
    state: State = {}
    factors: dict[str, float] = {}
    for i, j in pairs.items():
        names, constants = places[i]
        state |= constants
        state |= {names[part]: arrays[name] for part, name in theirs[j].arrays.items() if part in names}
        if "weight" in names:
            factors[names["weight"]] = theirs[j].factor
    used = {name for j in pairs.values() for name in theirs[j].arrays.values()}
    return state | {name: array for name, array in arrays.items() if name not in used}, factors


def _matched(
    model: keras.Model, theirs: Sequence[program.Node], folded: bool, classifier: bool
) -> tuple[dict[int, int], list[Place]]:
    places, ours = places_of(model, folded)
    return program.match(ours, theirs, classifier), places


def places_of(model: keras.Model, folded: bool = False) -> tuple[list[Place], list[program.Node]]:
    """The layers with weights, in order of execution: their names in the state, and their places in the graph.

    Args:
        model: The network.
        folded: Whether a convolution and the batch normalization that alone reads it are one node.
    """
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    names: dict[str, dict[str, str]] = {}
    state_shapes = states.state_shapes(model)
    for key, layer, _ in states.variables(model):
        part = key.rpartition(".")[2]
        names.setdefault(layer.name, {})[part] = key
        shapes.setdefault(layer.name, {})[part] = state_shapes[key]
    before = {
        operation.name: [t._keras_history.operation.name for t in keras.tree.flatten(operation.input)]
        for operation in model.operations
    }
    readers_of = Counter(name for inputs in before.values() for name in inputs)
    places: list[Place] = []
    found: list[program.Node] = []
    origins: dict[str, program.Origin] = {}  # operation: where its result comes from
    kernels: dict[str, int] = {}  # layer with a kernel: its node
    for operation in model.operations:
        name, inputs = operation.name, before[operation.name]
        result = program.origin(
            [origins[i] for i in inputs if i in origins], isinstance(operation, layers.Concatenate)
        )
        kernel = kernels.get(inputs[0]) if inputs and readers_of[inputs[0]] == 1 else None
        if folded and kernel is not None and isinstance(operation, layers.BatchNormalization):
            places[kernel] = _folded(operation, names[name], places[kernel][0], state_shapes)
            found[kernel].shapes["bias"] = state_shapes[names[name]["_mean"]]
        elif name in shapes:
            if not isinstance(operation, layers.BatchNormalization | layers.LayerNormalization):
                kernels[name] = len(found)
            places.append((names[name], {}))
            found.append(program.Node(shapes[name], result, {}))
            result = program.Origin({(len(found) - 1, ())})
        origins[name] = result
    return places, found


def _folded(
    norm: layers.BatchNormalization,
    names: dict[str, str],
    kernel: dict[str, str],
    shapes: Mapping[str, tuple[int, ...]],
) -> Place:
    """The place of a convolution and its normalization, which only adds ``bias``."""
    values = {"weight": 1.0, "_mean": 0.0, "_variance": 1.0 - norm.epsilon}
    constants = {names[part]: value for part, value in values.items() if part in names}
    if "bias" in kernel:
        constants[kernel["bias"]] = 0.0
    arrays = {key: np.full(shapes[key], value, np.float32) for key, value in constants.items()}
    return {"weight": kernel["weight"], "bias": names["bias"]}, arrays
