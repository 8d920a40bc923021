"""What a .tflite file consists of and how a runtime executes it (ai_edge_litert with XNNPACK)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from edgecls.export import reasons

BOUNDARY_OPS = ("QUANTIZE", "DEQUANTIZE", "CAST")  # conversions at the input and output
LEAST = 1e-30  # of a probability


def _log(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities, LEAST))


# Operations that end a file with probabilities, and how to get logits back (of a softmax, up to one summand an image).
HEADS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "SOFTMAX": _log,
    "LOGISTIC": lambda scores: _log(scores) - _log(1 - scores),
}


class Runner:
    """One file in one interpreter.

    Args:
        path: The .tflite file, or its content.
        threads: How many threads the interpreter uses.

    Attributes:
        input: The interpreter's details of the input tensor: shape, dtype, quantization.
        output: The same of the output tensor.
        head: ``SOFTMAX`` or ``LOGISTIC`` if the file gives probabilities, which ``HEADS`` turns into logits.
    """

    def __init__(self, path: str | Path | bytes, threads: int = 1) -> None:
        source = {"model_content": path} if isinstance(path, bytes) else {"model_path": os.fspath(path)}
        self.interpreter = Interpreter(**source, num_threads=threads)
        self.interpreter.allocate_tensors()
        self.input: dict[str, Any] = self.interpreter.get_input_details()[0]
        self.output: dict[str, Any] = self.interpreter.get_output_details()[0]
        self.head = _head(self.interpreter)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Real-valued logits [N, classes] of uint8 images [N, size, size, 3]."""
        return self.real(self.outputs(images))

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """What the file gives for uint8 images [N, size, size, 3], as it comes."""
        results = []
        for image in images:
            self.interpreter.set_tensor(self.input["index"], image[None].astype(self.input["dtype"]))
            self.interpreter.invoke()
            results.append(self.interpreter.get_tensor(self.output["index"])[0])
        return np.stack(results)

    def decode(self, data: bytes) -> np.ndarray:
        """Real-valued logits [N, classes] of the bytes of N outputs that were computed elsewhere."""
        values = np.frombuffer(data, self.output["dtype"])
        return self.real(values.reshape(-1, *self.output["shape"][1:]))

    def real(self, result: np.ndarray) -> np.ndarray:
        """The real-valued logits behind outputs of the file, as float32."""
        return HEADS[self.head](result) if self.head else self.scores(result)

    def scores(self, result: np.ndarray) -> np.ndarray:
        """Outputs of the file as real numbers, float32: probabilities where it ends in ``head``, else logits."""
        if result.dtype == np.float32:
            return result
        scale, zero = self.output["quantization"]
        return ((result.astype(np.float32) - zero) * scale).astype(np.float32)


def describe(path: str | Path) -> dict[str, Any]:
    """The operators of a file, and what the runtime does with them.

    Returns:
        ``bytes``: size of the file. ``ops``: {name: count}. ``float_ops``: names of operators that compute in float,
        without the conversions at input and output and without the softmax or sigmoid at the end. ``quantized``:
        whether activations are int8. ``partitions``: parts that XNNPACK runs. ``undelegated``: operators that XNNPACK
        does not run. ``outside``: the same with the name of each output and the reason (see ``reasons``).

    Example:
        >>> describe("model_int8.tflite")["partitions"]  # doctest: +SKIP
        1
    """
    interpreter = Interpreter(model_path=os.fspath(path), num_threads=1)
    interpreter.allocate_tensors()
    types = {tensor["index"]: tensor["dtype"] for tensor in interpreter.get_tensor_details()}
    nodes = interpreter._get_ops_details()
    operators = [node for node in nodes if node["op_name"] != "DELEGATE"]
    delegates = [node for node in nodes if node["op_name"] == "DELEGATE"]
    outputs = {int(output["index"]) for output in interpreter.get_output_details()}
    floats = [
        node["op_name"]
        for node in operators
        if any(types.get(int(i)) == np.float32 for i in node["outputs"])
        and not (node["op_name"] in HEADS and outputs & {int(i) for i in node["outputs"]})
    ]
    outside = _undelegated(operators, delegates, interpreter.get_output_details())
    made = {int(i) for node in operators for i in node["outputs"]}
    return {
        "bytes": Path(path).stat().st_size,
        "ops": dict(Counter(node["op_name"] for node in operators)),
        "float_ops": sorted({name for name in floats if name not in BOUNDARY_OPS}),
        "partitions": len(delegates),
        "quantized": any(types.get(index) == np.int8 for index in made),
        "undelegated": [node["op_name"] for node in outside],
        "outside": [_explained(node, interpreter) for node in outside],
    }


def _explained(node: Any, interpreter: Interpreter) -> dict[str, str]:
    """An operator outside of the delegate: ``op``, ``name`` of its output, ``reason``."""
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}

    def operands(key: str) -> list[reasons.Tensor]:
        known = [tensors[int(i)] for i in node[key] if int(i) in tensors]
        return [reasons.Tensor(t["dtype"], *t["quantization"]) for t in known]

    name = tensors[int(node["outputs"][0])]["name"].split(";")[0]
    why = reasons.reason(node["op_name"], operands("inputs"), operands("outputs"))
    return {"op": node["op_name"], "name": name, "reason": why}


def _undelegated(operators: list[Any], delegates: list[Any], outputs: list[Any]) -> list[Any]:
    """Operators that no delegate has replaced; the interpreter's list keeps the replaced ones, too.

    The search goes backwards from the tensors that delegates and the user read. If no delegate makes such a tensor, an
    operator does.
    """
    made = {int(i) for node in delegates for i in node["outputs"]}
    needed = {int(i) for node in delegates for i in node["inputs"]} | {int(o["index"]) for o in outputs}
    left = []
    for node in reversed(operators):
        if {int(i) for i in node["outputs"]} & (needed - made):
            needed |= {int(i) for i in node["inputs"]}
            left.append(node)
    return left[::-1]


def output_step(path: str | Path) -> float:
    """The quantization step of an int8 file's logits, as they come or under a conversion and a softmax; 0 of a float file."""
    interpreter = Interpreter(model_path=os.fspath(path), num_threads=1)
    output = interpreter.get_output_details()[0]
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    for node in reversed(interpreter._get_ops_details()):
        if output["index"] in node["outputs"] and node["op_name"] in ("DEQUANTIZE", *HEADS):
            output = tensors[int(node["inputs"][0])]
    return float(output["quantization"][0])


def _head(interpreter: Interpreter) -> str | None:
    """The operation of ``HEADS`` that makes the float output, if one does."""
    output = interpreter.get_output_details()[0]
    names = [node["op_name"] for node in interpreter._get_ops_details() if output["index"] in node["outputs"]]
    return next((n for n in names if n in HEADS and output["dtype"] == np.float32), None)
