"""Writes a network as a PaddlePaddle inference model, as ``paddle.jit.save`` would."""

from __future__ import annotations

import random
import struct

import keras
import numpy as np
from keras import layers

from edgecls.weights.load import state
from edgecls.zoo.state import state_name

TYPES = {"conv": "conv2d", "add": "elementwise_add", "dense": "matmul_v2", "norm": "batch_norm"}


def message(*fields):
    """A protocol buffer of (number, value): integers, floats, and bytes or text."""
    return b"".join(_field(number, value) for number, value in fields)


def _field(number, value):
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value % (1 << 64))
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    value = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value):
    low = b""
    while value > 127:
        low += bytes([value & 127 | 128])
        value >>= 7
    return low + bytes([value])


def write_paddle(model, path, dropout="downgrade_in_infer", seed=0):
    """Write ``path`` (.pdmodel) and the .pdiparams beside it.

    Branches are listed in an order of their own, and arrays are named in the order of their use. Returns the
    network's state as PaddlePaddle keeps it: what dropout scales is not folded into the kernels.
    """
    rng, arrays, ops = random.Random(seed), {}, []
    values = state(model)
    for operation in _shuffled(model, rng):
        inputs = [t._keras_history.operation.name for t in keras.tree.flatten(operation.input)]
        name, parts = operation.name, [k for k in values if k.rpartition(".")[0] == state_name(operation)]
        named = {key.rpartition(".")[2]: f"{'abc'[len(ops) % 3]}_{len(ops)}.{key[-3:]}" for key in parts}
        arrays |= {named[key.rpartition(".")[2]]: values[key] for key in parts}
        if isinstance(operation, layers.InputLayer):
            ops.append(_op("feed", {"X": ["feed"]}, name))
        elif isinstance(operation, layers.BatchNormalization):
            slots = {"Scale": "weight", "Bias": "bias", "Mean": "_mean", "Variance": "_variance"}
            ops.append(_op("batch_norm", {"X": inputs} | {s: [named[p]] for s, p in slots.items()}, name))
        elif parts:
            dense = isinstance(operation, layers.Dense)
            kinds = ("matmul_v2", "X", "Y") if dense else ("conv2d", "Input", "Filter")
            product = f"{name}.tmp" if "bias" in named else name
            ops.append(_op(kinds[0], {kinds[1]: inputs, kinds[2]: [named["weight"]]}, product))
            if "bias" in named:
                ops.append(_op("elementwise_add", {"X": [product], "Y": [named["bias"]]}, name))
        elif isinstance(operation, layers.Dropout):
            settings = [_attribute("dropout_prob", 1, (4, operation.rate))]
            settings.append(_attribute("dropout_implementation", 2, (5, dropout)))
            ops.append(_op("dropout", {"X": inputs}, name, settings))
        elif isinstance(operation, layers.Flatten):
            ops.append(_op("shape", {"Input": inputs}, f"{name}.shape"))
            ops.append(_op("reshape2", {"Shape": [], "ShapeTensor": [f"{name}.shape"], "X": inputs}, name))
        else:
            kinds = {
                layers.Concatenate: "concat",
                layers.GlobalAveragePooling2D: "pool2d",
                layers.ReLU: "relu",
            }
            ops.append(_op(kinds.get(type(operation), "another"), {"X": inputs}, name))
    variables = [_variable("feed", message((1, 9))), _variable("fetch", message((1, 10)))]
    variables += [_variable(n, message((1, 7), (3, message((1, _tensor(a)))))) for n, a in arrays.items()]
    block = message((1, 0), (2, -1), *((3, v) for v in variables), *((4, op) for op in ops))
    path.write_bytes(message((1, block), (4, message((1, 0)))))
    path.with_suffix(".pdiparams").write_bytes(
        b"".join(
            struct.pack("<IQIi", 0, 0, 0, len(_tensor(arrays[n]))) + _tensor(arrays[n]) + arrays[n].tobytes()
            for n in sorted(arrays)
        )
    )
    return values


def _shuffled(model, rng):
    """The network's operations in a random order that can be executed."""
    left, done = list(model.operations), set()
    while left:
        inputs = {
            op.name: {t._keras_history.operation.name for t in keras.tree.flatten(op.input)} for op in left
        }
        ready = [op for op in left if inputs[op.name] - {op.name} <= done]
        chosen = rng.choice(ready)
        left.remove(chosen)
        done.add(chosen.name)
        yield chosen


def _op(kind, inputs, output, attributes=()):
    slots = [(1, message((1, slot), *((2, name) for name in names))) for slot, names in inputs.items()]
    outputs = [(2, message((1, "Out"), (2, output)))]
    return message(*slots, *outputs, (3, kind), *((4, a) for a in attributes))


def _attribute(name, kind, value):
    return message((1, name), (2, kind), value)


def _variable(name, kind):
    return message((1, name), (2, kind), (3, 1))


def _tensor(array):
    assert array.dtype == np.float32
    return message((1, 5), *((2, size) for size in array.shape))
