"""The marks that keep operations in float during a conversion (see ``quantize.floats``), and how they leave the file."""

from __future__ import annotations

from ai_edge_litert import schema_py_generated as schema

from edgecls.export import flatbuffer


def unmark(content: bytes) -> bytes:
    """A converted file without marks: what reads one reads what the mark reads.

    Args:
        content: The converter's flatbuffer.
    """
    model = flatbuffer.unpack(content)
    graph = model.subgraphs[0]
    codes = [code.builtinCode for code in model.operatorCodes]
    floors, ceils = (
        {int(op.outputs[0]): op for op in graph.operators if codes[op.opcodeIndex] == kind}
        for kind in (schema.BuiltinOperator.FLOOR, schema.BuiltinOperator.CEIL)
    )
    passed, removed = {}, set()
    for output, ceil in ceils.items():
        if floor := floors.get(int(ceil.inputs[0])):
            passed[output] = int(floor.inputs[0])
            removed |= {id(floor), id(ceil)}

    def source(index: int) -> int:
        while index in passed:
            index = passed[index]
        return index

    graph.operators = [op for op in graph.operators if id(op) not in removed]
    for op in graph.operators:
        op.inputs = [source(int(index)) for index in op.inputs]
    graph.outputs = [source(int(index)) for index in graph.outputs]
    kinds = sorted(
        {op.opcodeIndex for op in graph.operators}
    )  # a runtime refuses a file that lists an unknown one
    model.operatorCodes = [model.operatorCodes[index] for index in kinds]
    for op in graph.operators:
        op.opcodeIndex = kinds.index(op.opcodeIndex)
    return flatbuffer.pack(model, len(content))
