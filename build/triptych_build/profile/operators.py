"""Which operators of an ONNX a layer of a runtime stands for: runtimes fuse them, and name what comes of it anew."""

from __future__ import annotations

import re
from dataclasses import replace

import onnx

from triptych.runtimes._layers import REFORMATS, Layer

BLOCKED = "_nchwc"
"""What ONNX Runtime adds to the name of a tensor whose channels it puts into blocks; it calls the layer so."""

COPY = re.compile(r"(_original|_\d+)$")
"""What OpenVINO adds to the name of an operator that it has several times or has rewritten."""

FUSED_AFTER = 3
"""Operators that a runtime fuses into the one before: a sum, an activation of two operators."""


class Operators:
    """The operators of one ONNX."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._kinds = {node.name: node.op_type for node in model.graph.node}
        self._makers = {output: node for node in model.graph.node for output in node.output}

    def recognised(self, layer: Layer) -> Layer:
        """Return a layer with the names of those operators alone that the ONNX has.

        What only quantizes, or only converts, is a reformat, whatever the runtime makes of it.
        """
        names = [name for name in layer.operators if name in self._kinds]
        names = names or [name for name in (COPY.sub("", name) for name in layer.operators) if name in self._kinds]
        names = names or self._made(layer.name.removesuffix(BLOCKED), layer.kind)
        only_reformats = bool(names) and all(self._kinds[name] in REFORMATS for name in names)
        return replace(layer, operators=tuple(names), is_reformat=layer.is_reformat or only_reformats)

    def _made(self, tensor: str, kind: str) -> list[str]:
        """Return the operators that a layer named after its output stands for: back to the one of its kind."""
        names: list[str] = []
        while len(names) <= FUSED_AFTER and (node := self._makers.get(tensor)) is not None:
            names.append(node.name)
            if node.op_type in kind:
                return names
            tensor = node.input[0] if node.input else ""
        return names[:1]
