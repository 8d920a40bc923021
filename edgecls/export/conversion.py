"""The graph of a network, and its conversion in a process of its own (see ``edgecls.export.converter``)."""

from __future__ import annotations

import json
import signal
import tempfile
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2_as_graph

from edgecls.copies import Server
from edgecls.errors import EdgeclsError
from edgecls.export.converter import ERROR, FILE, GRAPH, REQUEST

MAX_BYTES = 2**31  # of a protocol buffer
MEMORY = 12  # times the graph with its weights in float, of ConvNeXtTiny and Small in int8
AttrValue, NodeDef = tf.compat.v1.AttrValue, tf.compat.v1.NodeDef


server = Server("edgecls.export.converter")


def convert(
    function: Any,
    name: str,
    optimized: bool = False,
    input_type: str = "float32",
    output_type: str = "float32",
) -> bytes:
    """The TFLite flatbuffer of a concrete function of one tensor, without metadata.

    Args:
        function: From a float32 or uint8 image to logits.
        name: What it is called in an error.
        optimized: Whether the converter may round weights.
        input_type: What the file takes in place of float32, if its network is quantized.
        output_type: Likewise what it gives.

    Raises:
        EdgeclsError: The converter refuses it, the weights are too many, or memory runs out.
    """
    weights = sum(variable.shape.num_elements() * variable.dtype.size for variable in function.variables)
    if weights >= MAX_BYTES:
        raise EdgeclsError(
            f"a TensorFlow graph holds at most 2 GB, and these weights are {weights / 1e9:.1f} GB in float",
            where=name,
            fix="take a smaller network",
        )
    image, logits = function.inputs[0], function.outputs[0]
    ends = {
        key: (x.name, x.shape.as_list(), x.dtype.name) for key, x in (("image", image), ("logits", logits))
    }
    types = {"optimized": optimized, "input_type": input_type, "output_type": output_type}
    with tempfile.TemporaryDirectory(prefix="edgecls-") as path:
        folder = Path(path)
        graph = (folder / GRAPH).write_bytes(frozen(function).SerializeToString())
        (folder / REQUEST).write_text(json.dumps(ends | types), encoding="utf-8")
        code = server.run(path)
        if code == 0:
            return (folder / FILE).read_bytes()
        error = folder / ERROR
        if code > 0 and error.exists():
            raise EdgeclsError(f"TFLite conversion failed: {error.read_text(encoding='utf-8')}", where=name)
    killed = code == -signal.SIGKILL
    raise EdgeclsError(
        f"TFLite conversion was ended by {signal.Signals(-code).name if code < 0 else f'exit code {code}'}",
        where=name,
        fix=f"free memory: it takes about {MEMORY * graph / 1e9:.1f} GB" if killed else "",
    )


def frozen(function: Any) -> Any:
    """The graph of a function without variables, as a ``GraphDef``: what it captures are constants.

    TensorFlow does the same by making another function of a graph with constants. That takes ten times the memory of the
    weights, and only functions within functions need it.
    """
    graph = function.graph.as_graph_def()
    if graph.library.function:
        return convert_variables_to_constants_v2_as_graph(function)[1]
    variables = {id(variable.handle): variable for variable in function.variables}
    captured = {inner.op.name: outer for outer, inner in function.graph.captures}
    for node in graph.node:
        if node.name in captured:
            outer = captured[node.name]
            value = tf.make_tensor_proto(variables.get(id(outer), outer).numpy())
            attributes = {"dtype": AttrValue(type=value.dtype), "value": AttrValue(tensor=value)}
            node.CopyFrom(NodeDef(name=node.name, op="Const", attr=attributes))
        elif node.op == "ReadVariableOp":
            kind = {"T": AttrValue(type=node.attr["dtype"].type)}
            node.CopyFrom(NodeDef(name=node.name, op="Identity", input=node.input, attr=kind))
    return graph
