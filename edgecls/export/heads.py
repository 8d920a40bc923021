"""Probabilities at the end of a file. The converter would compute a softmax behind int8 logits in int8, outside of the
delegate and in steps of 1/256. So it converts the network without it, and the float operation is added to the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ai_edge_litert import schema_py_generated as schema

from edgecls._lazy import Lazy

if TYPE_CHECKING:
    import keras
else:  # reading a file's metadata imports this module, and needs no Keras
    keras = Lazy("keras")

OPERATORS = {"softmax": "SOFTMAX", "sigmoid": "LOGISTIC"}


def ending(model: keras.Model) -> str | None:
    """The function of ``OPERATORS`` that a network's scores come from, if one: its last layer, or that layer's activation."""
    end = model.outputs[0]._keras_history.operation
    if isinstance(end, keras.layers.Softmax):
        return "softmax"
    kind = keras.activations.serialize(end.activation) if getattr(end, "activation", None) else None
    return kind if kind in OPERATORS else None


def split(model: keras.Model) -> tuple[keras.Model, str | None]:
    """The part of a network up to its logits, and the function of ``OPERATORS`` that follows them, if one does."""
    end, kind = model.output._keras_history.operation, ending(model)
    if kind is None or not isinstance(end, keras.layers.Softmax | keras.layers.Activation):
        return model, None
    return keras.Model(model.input, end.input, name=model.name), kind


def append(model: Any, kind: str) -> None:
    """Add the function ``kind`` behind the output of a TFLite model, which is float.

    Args:
        model: A ``schema.ModelT`` with one output; changed in place.
        kind: A key of ``OPERATORS``.
    """
    graph, (logits,) = model.subgraphs[0], model.subgraphs[0].outputs
    code, operator, scores = schema.OperatorCodeT(), schema.OperatorT(), schema.TensorT()
    code.builtinCode = getattr(schema.BuiltinOperator, OPERATORS[kind])
    code.deprecatedBuiltinCode, code.version = code.builtinCode, 1
    source = graph.tensors[logits]
    scores.shape, scores.shapeSignature, scores.type = source.shape, source.shapeSignature, source.type
    scores.name, scores.buffer = "probabilities", 0
    if kind == "softmax":
        operator.builtinOptions, operator.builtinOptionsType = (
            schema.SoftmaxOptionsT(),
            schema.BuiltinOptions.SoftmaxOptions,
        )
        operator.builtinOptions.beta = 1.0
    operator.opcodeIndex, operator.inputs, operator.outputs = (
        len(model.operatorCodes),
        [logits],
        [len(graph.tensors)],
    )
    model.operatorCodes.append(code)
    graph.tensors.append(scores)
    graph.operators.append(operator)
    graph.outputs = operator.outputs
