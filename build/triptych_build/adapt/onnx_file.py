"""ONNX files: read whole and in order, and the record that an adapted one carries."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx.checker
import onnx.defs
import onnx.external_data_helper
import onnx.version_converter
import onnx_ir
from google.protobuf.message import DecodeError
from onnx_ir.passes.common import NameFixPass, RemoveUnusedNodesPass, TopologicalSortPass

from triptych.contract import DetectorSpec
from triptych.errors import BuildError
from triptych.files import sha256
from triptych_build.adapt.heads import Normalization, Reading

METADATA_KEY = "triptych"
"""Where an adapted ONNX keeps its `Adapted` record, as JSON, in its metadata."""

OLDEST_OPSET = 13
"""Older graphs are converted: the tails take Unsqueeze's axes as an input."""

_TIDY = onnx_ir.passes.Sequential(TopologicalSortPass(), RemoveUnusedNodesPass(), NameFixPass())


@dataclass(frozen=True)
class Adapted:
    """What was made of a source, kept inside the adapted ONNX.

    Attributes:
        head: name of the head that was recognised or chosen.
        source: file name of the source.
        source_sha256: hash of the source, `source_sha256(path)`.
        candidates: K, the number of candidates that leave the graph for one image.
        normalization: what the front of the graph does to the pixels.
        spec: what preprocess, postprocess and clients need to know.
        source_batch: the batch that the source was fixed at, or None if it was open.
        batch_kept: whether that batch is fixed still.
        why_kept: why it could not be opened, in words; empty if it was not tried.
        reading: how the head's numbers are read; None in records from before there was a choice.
        unnamed: the class ids that the source's names leave out.
        exporter: what tells the exporter and so how images are prepared, in a sentence; empty if nothing does.
    """

    head: str
    source: str
    source_sha256: str
    candidates: int
    normalization: Normalization
    spec: DetectorSpec
    source_batch: int | None = None
    batch_kept: bool = False
    why_kept: str = ""
    reading: Reading | None = None
    unnamed: tuple[int, ...] = ()
    exporter: str = ""

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Adapted:
        """Read back what `asdict` made of a record, also after JSON."""
        normalization, spec, reading = stored["normalization"], stored["spec"], stored.get("reading")
        triples = {name: tuple(normalization[name]) for name in ("mean", "std")}
        return cls(
            **stored
            | {
                "normalization": Normalization(**normalization | triples),
                "spec": DetectorSpec(**spec | {"class_names": tuple(spec["class_names"])}),
                "reading": Reading(**reading) if reading else None,
                "unnamed": tuple(stored.get("unnamed", ())),
            }
        )


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read a model whose operators are in order and have names, of an opset that the tails can use.

    Raises:
        BuildError: the file is missing, cut short, or no ONNX model.
    """
    if not path.is_file():
        raise BuildError(f"there is no file {path}")
    try:
        model = onnx.load(path)
        if not model.graph.node:
            raise ValueError("it has no operators")
        if foreign := foreign_operators(model):
            raise BuildError(
                f"{path} has operators that are not ONNX's own: {', '.join(foreign)}; TensorRT, OpenVINO and ONNX "
                "Runtime would each need a plugin for them, and Triptych takes none: export without them (suppression "
                "and decode in plain operators, no optimisation for one runtime)"
            )
        model = tidied(model)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, ValueError, OSError, RuntimeError) as error:
        cause = error.__cause__ or error  # onnx-ir's own errors name the pass, and not what is wrong
        first_line = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise BuildError(f"{path} is not a whole ONNX model ({first_line}); export it again") from error
    return model if opset_of(model) >= OLDEST_OPSET else onnx.version_converter.convert_version(model, OLDEST_OPSET)


def foreign_operators(model: onnx.ModelProto) -> list[str]:
    """Return the kinds of operators that neither ONNX nor the model itself defines, each with its domain."""
    own = {(function.domain, function.name) for function in model.functions}
    versions = {entry.domain: entry.version for entry in model.opset_import}
    foreign = set()
    for node in walk(model.graph):
        domain = "" if node.domain == "ai.onnx" else node.domain
        known = onnx.defs.has(node.op_type, versions.get(node.domain, 1), domain)
        if not known and (node.domain, node.op_type) not in own:
            foreign.add(f"{node.op_type} ({node.domain or 'of no domain'})")
    return sorted(foreign)


def walk(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Return the operators of a graph and of the graphs inside them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from walk(inner)


def source_sha256(path: Path) -> str:
    """Return a hash of a model: its file's, or one of that and of the files that its weights lie in."""
    weights = external_files(path)
    if not weights:
        return sha256(path)
    parts = (f"{file.name} {sha256(file)}" for file in (path, *weights) if file.is_file())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def external_files(path: Path) -> list[Path]:
    """Return the files in which a model keeps tensors that are not in its own; none where it is no ONNX."""
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError:
        return []
    graphs = [model.graph.node, *(function.node for function in model.functions)]
    tensors = [*model.graph.initializer, *(tensor for nodes in graphs for tensor in _tensors(nodes))]
    external = filter(onnx.external_data_helper.uses_external_data, tensors)
    return sorted({path.parent / onnx.external_data_helper.ExternalDataInfo(tensor).location for tensor in external})


def _tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    """Yield the tensors in operators' attributes, also those of their inner graphs."""
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for graph in (attribute.g, *attribute.graphs):
                yield from graph.initializer
                yield from _tensors(graph.node)


def tidied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with its operators in topological order, each with a name, and none that nothing reads.

    Exporters leave constants that no operator reads, of which runtimes warn, and operators in an order that the checker
    refuses (Ultralytics with half=True).
    """
    return onnx_ir.to_proto(_TIDY(onnx_ir.from_proto(model)).model)


def read_adapted(model: onnx.ModelProto) -> Adapted | None:
    """Return the record inside an adapted model, or None if it is not one of ours."""
    stored = next((entry.value for entry in model.metadata_props if entry.key == METADATA_KEY), None)
    return Adapted.from_dict(json.loads(stored)) if stored else None


def add_record(model: onnx.ModelProto, record: Adapted) -> None:
    """Put the record of an adapted model inside it."""
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(asdict(record))


def read_adapted_file(path: Path) -> tuple[onnx.ModelProto, Adapted]:
    """Read an adapted model and its record.

    Raises:
        BuildError: it is no whole ONNX, or not adapted.
    """
    model = read_onnx(path)
    record = read_adapted(model)
    if record is None:
        raise BuildError(f"{path} is not adapted to the contract; run `triptych adapt {path} --out ADAPTED.onnx`")
    return model, record


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators that a model uses."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
