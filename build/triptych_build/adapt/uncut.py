"""The source without its cut: every candidate leaves the graph, for the gate to hold the served K against."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.shape_inference

from triptych_build.adapt.graph import is_own


def uncut(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return an adapted model that gives all candidates of its head, best first.

    A head that tells only when it runs how many it has stays as it is: it suppresses inside.
    """
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    graph = whole.graph
    top = [node for node in graph.node if node.op_type == "TopK" and is_own(node)][-1]
    shapes = {value.name: value for value in onnx.shape_inference.infer_shapes(whole, data_prop=True).graph.value_info}
    count = _columns(shapes[top.input[0]]) if top.input[0] in shapes else 0
    if not count:
        return whole
    (k,) = [tensor for tensor in graph.initializer if tensor.name == top.input[1]]
    k.CopyFrom(onnx.numpy_helper.from_array(np.array([count], np.int64), k.name))
    graph.output[0].type.tensor_type.shape.dim[1].dim_value = count
    del graph.value_info[:]
    return whole


def _columns(scores: onnx.ValueInfoProto) -> int:
    """Return how many scores there are for an image; 0 where the graph leaves it open."""
    dims = scores.type.tensor_type.shape.dim
    return int(dims[1].dim_value) if len(dims) == 2 else 0
