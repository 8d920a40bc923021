"""The operations of a .tflite file, read from its FlatBuffer: no TensorFlow, no interpreter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from android_bench.errors import BenchUsageError
from android_bench.predict.operations import Operation, Shape

# What an operator of TFLite is to a predictor. Those that are not named are "other".
_KINDS = {
    **dict.fromkeys(("CONV_2D", "TRANSPOSE_CONV"), "conv"),
    "DEPTHWISE_CONV_2D": "depthwise",
    "FULLY_CONNECTED": "dense",
    "BATCH_MATMUL": "matmul",
    "SOFTMAX": "softmax",
    "CONCATENATION": "concat",
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), "pool"),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"), "mean"),
    **dict.fromkeys(("ADD", "SUB", "SQUARED_DIFFERENCE", "MAXIMUM", "MINIMUM"), "add"),
    **dict.fromkeys(("MUL", "DIV"), "mul"),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "DEPTH_TO_SPACE", "SPACE_TO_DEPTH"), "resize"),
    **dict.fromkeys(("TRANSPOSE", "SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V", "GATHER", "TILE", "PACK"), "move"),
    **dict.fromkeys(
        ("RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1", "LEAKY_RELU", "PRELU", "ELU", "HARD_SWISH", "LOGISTIC", "TANH",
         "GELU", "ABS", "EXP", "SQRT", "RSQRT", "SQUARE", "NEG", "QUANTIZE", "DEQUANTIZE", "CAST"),
        "activation",
    ),
}  # fmt: skip
_FREE = ("PAD", "RESHAPE", "SQUEEZE", "EXPAND_DIMS")
"""A runtime folds padding into the convolution behind it, and reshaping moves nothing."""
_ELEMENTWISE = ("add", "mul", "activation")


def read_operations(path: str | Path) -> list[Operation]:
    """The operations of a file, as ``android_bench.predict.operations`` describes them.

    Example:
        >>> sum(o.macs for o in read_operations("MobileNetV1_fp32.tflite"))   # doctest: +SKIP
        568740352

    Raises:
        BenchUsageError: The file cannot be read or is not TFLite.
    """
    from ai_edge_litert import schema_py_generated as schema

    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise BenchUsageError(f"cannot read the model: {error.strerror}", where=str(path)) from None
    if data[4:8] != b"TFL3":
        raise BenchUsageError("not a TFLite file", where=str(path))
    try:
        return _Reader(schema.Model.GetRootAs(data, 0), schema).operations()
    except BenchUsageError:
        raise
    except Exception as error:  # a torn file makes the FlatBuffer reader raise whatever it meets
        raise BenchUsageError(f"the file cannot be read: {error}", where=str(path)) from None


class _Reader:
    """Walks over the operators of a file in their order and merges those that are one operation."""

    def __init__(self, model: Any, schema: Any) -> None:
        self._model, self._graph = model, model.Subgraphs(0)
        self._names = {code: name for name, code in vars(schema.BuiltinOperator).items() if name[0] != "_"}
        self._alias: dict[int, int] = {}  # tensors that padding and reshaping made, to what they were made of
        self._shapes: dict[int, Shape] = {}  # of what padding made: the shape before it
        self._chains: dict[
            int, list[int]
        ] = {}  # tensors in a chain of element-wise steps, to [chain, its origin]
        self._image = {int(self._graph.Inputs(i)) for i in range(self._graph.InputsLength())}
        self._found: list[Operation] = []

    def operations(self) -> list[Operation]:
        for i in range(self._graph.OperatorsLength()):
            operator = self._graph.Operators(i)
            code = self._model.OperatorCodes(operator.OpcodeIndex())
            name = self._names.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "CUSTOM")
            self._take(name, operator)
        return self._found

    def _take(self, name: str, operator: Any) -> None:
        inputs = [int(t) for t in operator.InputsAsNumpy() if t >= 0] if operator.InputsLength() else []
        maps = [self._alias.get(t, t) for t in inputs if not self._is_constant(t)]
        outputs = [int(t) for t in operator.OutputsAsNumpy()]
        if not maps:
            return  # computed from constants, once
        if name in _FREE:
            self._alias[outputs[0]] = maps[0]
            if name == "PAD":
                self._shapes[outputs[0]] = self._shape(inputs[0])
            return
        kind = _KINDS.get(name, "other")
        if kind in _ELEMENTWISE and self._continues(maps, outputs[0]):
            return
        if kind in _ELEMENTWISE and len(maps) == 1:
            if maps[0] in self._image:  # of pixels: every file has it, and it takes little of the time
                self._image.add(outputs[0])
                return
            kind = "activation"
            self._chains[outputs[0]] = [len(self._found), maps[0]]
        shapes = tuple(self._shape(t) for t in inputs if not self._is_constant(t))
        operation = Operation(kind, shapes, self._shape(outputs[0]))
        if kind in ("conv", "depthwise", "dense"):
            operation = _convolution(operation, self._whole_shape(inputs[1]))
        self._found += [replace(operation, output=self._shape(t)) for t in outputs]

    def _continues(self, maps: list[int], output: int) -> bool:
        """Whether an element-wise step goes on with a chain: all that it reads is of the chain, or is its origin."""
        links = [self._chains[t] for t in maps if t in self._chains]
        if not links or any(t not in self._chains and t != links[0][1] for t in maps):
            return False
        if any(link != links[0] for link in links):
            return False
        self._chains[output] = links[0]
        return True

    def _is_constant(self, tensor: int) -> bool:
        return bool(self._model.Buffers(self._graph.Tensors(tensor).Buffer()).DataLength() > 0)

    def _shape(self, tensor: int) -> Shape:
        """Without the batch."""
        return self._shapes.get(tensor) or self._whole_shape(tensor)[1:]

    def _whole_shape(self, tensor: int) -> Shape:
        found = self._graph.Tensors(tensor)
        return tuple(int(side) for side in found.ShapeAsNumpy()) if found.ShapeLength() else ()


def _convolution(operation: Operation, weights: Shape) -> Operation:
    """With its kernel and groups, which the shape of its weights tells."""
    if operation.kind == "dense":
        return operation
    kernel = (weights[1], weights[2])
    if operation.kind == "depthwise":
        return replace(operation, kernel=kernel)
    channels = operation.inputs[0][-1]
    if weights[3] != channels:
        return replace(operation, kind="grouped", kernel=kernel, groups=channels // weights[3])
    return replace(operation, kind="pointwise" if kernel == (1, 1) else "conv", kernel=kernel)
