"""The precision that each layer of a file really calculates in, as whoever runs it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import onnx.shape_inference

from triptych.runtimes._layers import MATRIX_KIND
from triptych_build.adapt.graph import QUANTIZING
from triptych_build.adapt.onnx_file import read_onnx
from triptych_build.publish.artifact import Artifact
from triptych_build.publish.target import TARGETS, TargetName
from triptych_build.quantize.precision import NARROW
from triptych_build.quantize.qdq import quantized_layers
from triptych_build.tensorrt.plan import read_record


@dataclass(frozen=True)
class Layers:
    """The layers of a file.

    Attributes:
        source: who says so: "plan" (TensorRT's engine inspector), "network" (TensorRT before fusion, where there is no
            GPU to ask), "openvino" (on this machine), or "graph" (the ONNX; the runtime may choose otherwise).
        rows: name, kind and precision of each.
    """

    source: str
    rows: tuple[dict[str, str], ...]

    def outside(self, precision: str) -> list[str]:
        """Return the layers with weights that calculate in another precision."""
        return [row["name"] for row in self._matrix() if row["precision"] != precision]

    @property
    def count(self) -> int:
        """How many layers have weights."""
        return len(self._matrix())

    def _matrix(self) -> list[dict[str, str]]:
        return [row for row in self.rows if MATRIX_KIND.search(row["kind"])]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the manifest: the names by precision."""
        precisions: dict[str, list[str]] = {}
        for row in self.rows:
            precisions.setdefault(row["precision"], []).append(row["name"])
        return {"from": self.source, "precisions": precisions}


def read_layers(artifact: Artifact, target: TargetName) -> Layers:
    """Return the layers of a file that a target serves.

    Raises:
        BuildError: OpenVINO cannot run it.
    """
    if artifact.engine:
        return Layers(artifact.engine.layers_from, tuple(read_record(artifact.path).layers))
    if TARGETS[target].package == "openvino":
        from triptych.runtimes.openvino import read_layers as openvino_layers

        return Layers("openvino", tuple(openvino_layers(artifact.path)))
    return Layers("graph", tuple(_graph_layers(read_onnx(artifact.path))))


def _graph_layers(model: onnx.ModelProto) -> Sequence[dict[str, str]]:
    """Return the operators that calculate with floats, each in the precision of what it reads or writes."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    names = {onnx.TensorProto.FLOAT: "fp32"} | {element: name for name, (element, _) in NARROW.items()}
    values = (*graph.value_info, *graph.output)
    elements = {value.name: names.get(value.type.tensor_type.elem_type) for value in values}
    int8 = set(quantized_layers(model))
    rows = []
    for node in graph.node:
        precision = "int8" if node.name in int8 else elements.get(node.output[0])
        if precision and node.op_type not in ("Constant", *QUANTIZING):
            rows.append({"name": node.name, "kind": node.op_type, "precision": precision})
    return rows
