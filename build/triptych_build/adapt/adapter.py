"""Rewrite a detector's ONNX into the contract: uint8 pixels [N, H, W, 3] in, candidates [N, K, 6] out.

    python build/adapt.py MODEL.onnx --out ADAPTED.onnx

Normalisation and channel order go to the front of the graph, scoring, top-k and box decoding to its end, so that
preprocess and postprocess never know which detector runs. Only plain ONNX operators are added: the same file runs
on TensorRT, ONNX Runtime and OpenVINO.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import onnx.compose
import onnx.numpy_helper
import onnx.parser
import onnx.shape_inference
import onnx.version_converter
import onnxruntime
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from triptych.cli.console import run
from triptych.contract import CANDIDATES, PIXELS, DetectorSpec, Placement
from triptych.errors import BuildError
from triptych.files import atomic_write
from triptych_build.adapt import batch, heads
from triptych_build.adapt.heads import Head, Normalization
from triptych_build.ultralytics import ENGINES, engine_names

METADATA_KEY = "triptych"
"""Where an adapted ONNX keeps its `Adapted` record, as JSON, in its metadata."""

OLDEST_OPSET = 13
"""Older graphs are converted: the tails take Unsqueeze's axes as an input."""


@dataclass(frozen=True)
class Adapted:
    """What was made of a source, kept inside the adapted ONNX.

    Attributes:
        head: name of the head that was recognised or chosen.
        source: file name of the source.
        source_sha256: hash of the source file.
        candidates: K, the number of candidates that leave the graph for one image.
        normalization: what the front of the graph does to the pixels.
        spec: what preprocess, postprocess and clients need to know.
        source_batch: the batch that the source was fixed at, or None if it was open.
    """

    head: str
    source: str
    source_sha256: str
    candidates: int
    normalization: Normalization
    spec: DetectorSpec
    source_batch: int | None = None


@dataclass(frozen=True)
class Overrides:
    """The user's word against the family's habits; None leaves the habit in place.

    `keep_batch` leaves a batch that the source has fixed at 1 as it is, to be served image by image.
    """

    head: str | None = None
    size: tuple[int, int] | None = None
    names: Sequence[str] | None = None
    order: str | None = None
    scale: float | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    placement: Placement | None = None
    pad_value: int | None = None
    score_threshold: float | None = None
    iou_threshold: float | None = None
    keep_batch: bool = False


def adapt(path: Path, overrides: Overrides | None = None) -> onnx.ModelProto:
    """The adapted model of one source file, with its `Adapted` record in the metadata.

    Raises:
        BuildError: the file is no ONNX model, or no detector that can be adapted.
    """
    overrides = overrides or Overrides()
    model = read_onnx(path)
    image = _image_input(model)
    size = overrides.size or _told_size(model, image)
    if size:
        _fix_size(image, *size)
    source = _source(model, image)
    head = heads.head_named(overrides.head) if overrides.head else heads.recognise(source)
    if not head.matches(source):
        found = "; ".join(str(output) for output in source.outputs)
        raise BuildError(f"the head {head.name!r} needs {head.description}, but the model's outputs are {found}")
    normalization = _normalization(head, overrides)
    tail = head.tail(source)
    source_batch = image.type.tensor_type.shape.dim[0].dim_value or None
    record = Adapted(
        head=head.name,
        source=path.name,
        source_sha256=sha256(path),
        candidates=tail.candidates,
        normalization=normalization,
        spec=_spec(model, head, source, overrides),
        source_batch=source_batch,
    )
    if source_batch and overrides.keep_batch:
        if source_batch > 1:
            raise BuildError(
                f"--keep-batch serves image by image, but the model takes {source_batch} at a time; "
                "leave it out, or export the model with a batch of 1"
            )
    elif source_batch:
        model = batch.open_batch(model, image.name)
    batch_size = "1" if overrides.keep_batch and source_batch else batch.BATCH
    front = _front(image, source, normalization, batch_size)
    back = _back(model, tail, source, batch_size)
    adapted = _join(model, front, back, image.name, [output.name for output in source.outputs])
    _drop_unused(adapted.graph)
    entry = adapted.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(asdict(record))
    onnx.checker.check_model(adapted, full_check=True)
    return adapted


def read_onnx(path: Path) -> onnx.ModelProto:
    """A model from disk, of an opset that the tails can use.

    Raises:
        BuildError: the file is missing, cut short, or no ONNX model.
    """
    if not path.is_file():
        raise BuildError(f"there is no file {path}")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, ValueError, OSError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BuildError(f"{path} is not a whole ONNX model ({first_line}); export it again") from error
    if not model.graph.node:
        raise BuildError(f"{path} is not a whole ONNX model (it has no operators); export it again")
    if opset_of(model) < OLDEST_OPSET:
        model = onnx.version_converter.convert_version(model, OLDEST_OPSET)
    return model


def read_adapted(model: onnx.ModelProto) -> Adapted | None:
    """The record inside an adapted model, or None if it is not one of ours."""
    stored = next((entry.value for entry in model.metadata_props if entry.key == METADATA_KEY), None)
    return adapted_from(json.loads(stored)) if stored else None


def read_adapted_file(path: Path) -> tuple[onnx.ModelProto, Adapted]:
    """An adapted model from disk, and its record.

    Raises:
        BuildError: it is no whole ONNX, or not adapted.
    """
    model = read_onnx(path)
    record = read_adapted(model)
    if record is None:
        raise BuildError(
            f"{path} is not adapted to the contract; run `python build/adapt.py {path} --out ADAPTED.onnx`"
        )
    return model, record


def adapted_from(stored: dict[str, Any]) -> Adapted:
    """A record as it is stored, `asdict` of one, back as a value."""
    normalization, spec = stored["normalization"], stored["spec"]
    triples = {name: tuple(normalization[name]) for name in ("mean", "std")}
    return Adapted(
        **stored
        | {
            "normalization": Normalization(**normalization | triples),
            "spec": DetectorSpec(**spec | {"class_names": tuple(spec["class_names"])}),
        }
    )


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that a model uses."""
    return next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _image_input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The one image input [N, 3, H, W] of the source."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) == 1:
        shape = inputs[0].type.tensor_type.shape.dim
        if len(shape) == 4 and shape[1].dim_value == 3:
            return inputs[0]
    found = "; ".join(f"{value.name} {_shape_text(value)}" for value in inputs) or "none"
    raise BuildError(f"a detector must take one image [N, 3, height, width], but the model's inputs are {found}")


def _shape_text(value: onnx.ValueInfoProto) -> str:
    sizes = (str(dim.dim_value or dim.dim_param or "?") for dim in value.type.tensor_type.shape.dim)
    return f"[{', '.join(sizes)}]"


def _fix_size(image: onnx.ValueInfoProto, width: int, height: int) -> None:
    """Give an input of open size the size that the user asks for."""
    for dim, size, side in zip(image.type.tensor_type.shape.dim[2:], (height, width), ("height", "width"), strict=True):
        if dim.dim_value and dim.dim_value != size:
            raise BuildError(f"--size asks for {side} {size}, but the model was exported with {side} {dim.dim_value}")
        dim.dim_value = size


def _told_size(model: onnx.ModelProto, image: onnx.ValueInfoProto) -> tuple[int, int] | None:
    """Width and height that the metadata names (`imgsz` [height, width], by Ultralytics), for an input of open size."""
    if all(dim.dim_value for dim in image.type.tensor_type.shape.dim[2:]):
        return None
    text = next((entry.value for entry in model.metadata_props if entry.key == "imgsz"), "")
    sides = re.fullmatch(r"\[(\d+), (\d+)\]", text)
    return (int(sides[2]), int(sides[1])) if sides else None


def _source(model: onnx.ModelProto, image: onnx.ValueInfoProto) -> heads.Source:
    """Outputs and size of the source; sizes that the file leaves open are inferred, or else measured."""
    height, width = (dim.dim_value for dim in image.type.tensor_type.shape.dim[2:])
    if not height or not width:
        raise BuildError(
            f"the model's input {image.name} {_shape_text(image)} has no fixed size; give one with --size, e.g. 640x640"
        )
    shapes = [_shape(value) for value in _reinferred(model).graph.output]
    if any(size is None for shape in shapes for size in shape[1:]):
        shapes = _measured_shapes(model, image)
    producers = {name: node.op_type for node in model.graph.node for name in node.output}
    outputs = (
        heads.Output(value.name, shape, producers.get(value.name, ""))
        for value, shape in zip(model.graph.output, shapes, strict=True)
    )
    return heads.Source(tuple(outputs), width, height, opset_of(model), frozenset(producers.values()))


def _reinferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the shapes of its outputs inferred from those of its inputs alone."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    for value in bare.graph.output:
        value.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(bare, data_prop=True)


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    return tuple(dim.dim_value or None for dim in value.type.tensor_type.shape.dim)


def _measured_shapes(model: onnx.ModelProto, image: onnx.ValueInfoProto) -> list[tuple[int | None, ...]]:
    """The outputs' shapes on two very different images; a size that differs depends on what is seen, and is open."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    shape = [dim.dim_value or 1 for dim in image.type.tensor_type.shape.dim]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(image.type.tensor_type.elem_type)
    noise = np.random.default_rng(0).random(shape).astype(dtype)
    runs = [session.run(None, {image.name: seen}) for seen in (np.zeros(shape, dtype), noise * 255)]
    return [
        tuple(one if one == other else None for one, other in zip(black.shape, noisy.shape, strict=True))
        for black, noisy in zip(*runs, strict=True)
    ]


def _normalization(head: Head, overrides: Overrides) -> Normalization:
    asked = {name: getattr(overrides, name) for name in ("order", "scale", "mean", "std")}
    chosen = replace(head.normalization, **{name: value for name, value in asked.items() if value is not None})
    if chosen.order not in ("rgb", "bgr"):
        raise BuildError(f"the channel order must be rgb or bgr, but got {chosen.order!r}")
    if 0 in chosen.std:
        raise BuildError(f"no standard deviation may be 0, but got {chosen.std}")
    return chosen


def _spec(model: onnx.ModelProto, head: Head, source: heads.Source, overrides: Overrides) -> DetectorSpec:
    def choose(asked: object, habit: object) -> object:
        return habit if asked is None else asked

    return DetectorSpec(
        width=source.width,
        height=source.height,
        class_names=_class_names(model, head.class_count(source), overrides.names),
        placement=choose(overrides.placement, head.placement),
        pad_value=choose(overrides.pad_value, head.pad_value),
        score_threshold=choose(overrides.score_threshold, DetectorSpec.score_threshold),
        iou_threshold=choose(overrides.iou_threshold, head.iou_threshold),
    )


def _class_names(model: onnx.ModelProto, count: int | None, given: Sequence[str] | None) -> tuple[str, ...]:
    """Names from the user, else from the metadata (`{0: 'open', …}` as YOLO exports write it), else numbers."""
    if given is not None:
        names = list(given)
    else:
        text = next((entry.value for entry in model.metadata_props if entry.key == "names"), "")
        try:
            parsed = ast.literal_eval(text) if text else {}
        except (ValueError, SyntaxError):
            parsed = {}
        names = list(parsed.values() if isinstance(parsed, dict) else parsed)
        names = [str(name) for name in names] or [f"class {number}" for number in range(count or 0)]
    if not names:
        raise BuildError("neither the model's shape nor its metadata tells its classes; name them with --names FILE")
    if count is not None and len(names) != count:
        raise BuildError(f"the model has {count} classes, but {len(names)} names were given; give one name for each")
    return tuple(names)


def _front(
    image: onnx.ValueInfoProto, source: heads.Source, normalization: Normalization, batch_size: str
) -> onnx.GraphProto:
    """Pixels uint8 [N, H, W, 3] to what the source takes. The cast comes first: TensorRT wants it there."""
    element = image.type.tensor_type.elem_type
    scale = np.array(normalization.scale, np.float64) / np.array(normalization.std, np.float64)
    offset = -np.array(normalization.mean, np.float64) / np.array(normalization.std, np.float64)
    statements = ["floats = Cast <to = 1> (pixels)", "planes = Transpose <perm = [0, 3, 1, 2]> (floats)"]
    constants = {}
    last = "planes"

    def by_channel(values: NDArray[np.float64]) -> NDArray[np.float32]:
        """One value for each channel, or for all: TensorRT 8 cannot fuse three equal ones with a Q/DQ pair."""
        values = values[:1] if (values == values[0]).all() else values
        return values.astype(np.float32).reshape(1, -1, 1, 1)

    def then(result: str, operator: str, constant: np.ndarray, attributes: str = "") -> None:
        nonlocal last
        constants[f"{result}_by"] = constant
        statements.append(f"{result} = {operator} {attributes} ({last}, {result}_by)")
        last = result

    if normalization.order == "bgr":
        then("swapped", "Gather", np.array([2, 1, 0], np.int64), "<axis = 1>")
    if (scale != 1).any():
        then("scaled", "Mul", by_channel(scale))
    if offset.any():
        then("shifted", "Add", by_channel(offset))
    statements.append(f"image = Cast <to = {element}> ({last})")
    return _parse(
        f"front (uint8[{batch_size}, {source.height}, {source.width}, 3] pixels)"
        f" => ({_element_name(element)}[{batch_size}, 3, {source.height}, {source.width}] image)",
        "\n".join(statements),
        constants,
    )


def _back(model: onnx.ModelProto, tail: heads.Tail, source: heads.Source, batch_size: str) -> onnx.GraphProto:
    """The source's outputs to candidates; half-precision outputs are widened first."""
    elements = {value.name: value.type.tensor_type.elem_type for value in model.graph.output}
    inputs, widened = [], []
    for number, output in enumerate(source.outputs):
        sizes = [batch_size, *(str(size or f"d{number}_{axis}") for axis, size in enumerate(output.shape[1:]))]
        element, name = elements[output.name], f"raw{number}"
        if element == onnx.TensorProto.FLOAT16:
            widened.append(f"{name} = Cast <to = 1> (half{number})")
            name = f"half{number}"
        inputs.append(f"{_element_name(element)}[{', '.join(sizes)}] {name}")
    return _parse(
        f"back ({', '.join(inputs)}) => (float[{batch_size}, {tail.candidates}, 6] candidates)",
        "\n".join([*widened, tail.statements]),
        tail.constants,
    )


def _element_name(element: int) -> str:
    """An element type as ONNX's textual form writes it."""
    names = {"FLOAT": "float", "FLOAT16": "float16", "INT64": "int64", "INT32": "int32"}
    found = onnx.TensorProto.DataType.Name(element)
    if found not in names:
        raise BuildError(f"a detector's tensors must be one of {', '.join(names)}, but the model has {found}")
    return names[found]


def _parse(signature: str, statements: str, constants: dict[str, np.ndarray]) -> onnx.GraphProto:
    graph = onnx.parser.parse_graph(f"{signature} {{\n{statements}\n}}")
    used = {name for node in graph.node for name in node.input}
    graph.initializer.extend(
        onnx.numpy_helper.from_array(value, name) for name, value in constants.items() if name in used
    )
    return graph


def _join(
    model: onnx.ModelProto, front: onnx.GraphProto, back: onnx.GraphProto, image: str, outputs: list[str]
) -> onnx.ModelProto:
    """front, source and back as one model, our own names prefixed so that none of the source's can clash."""
    for graph in (front, back):
        onnx.compose.add_prefix_graph(graph, "triptych/", inplace=True)
    graph = onnx.compose.merge_graphs(front, model.graph, io_map=[("triptych/image", image)])
    io_map = list(zip(outputs, (value.name for value in back.input), strict=True))
    graph = onnx.compose.merge_graphs(graph, back, io_map=io_map, name=model.graph.name)
    for node in graph.node:
        node.input[:] = [_public(name) for name in node.input]
        node.output[:] = [_public(name) for name in node.output]
    graph.input[0].name, graph.output[0].name = PIXELS.name, CANDIDATES.name
    adapted = onnx.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version, producer_name="triptych"
    )
    adapted.functions.extend(model.functions)
    adapted.metadata_props.extend(model.metadata_props)
    return adapted


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """All names that a node reads, those that its inner graphs take from outside included."""
    yield from node.input
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for each in inner.node:
                yield from reads(each)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Take out constants that no node reads: exporters leave some, and runtimes warn of each."""
    read = {name for node in graph.node for name in reads(node)}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _public(name: str) -> str:
    """The contract's tensors go by their own names."""
    return {"triptych/pixels": PIXELS.name, "triptych/candidates": CANDIDATES.name}.get(name, name)


def adapt_file(path: Path, out: Path, overrides: Overrides) -> Adapted:
    """Adapt one file into another, which is whole or not there; say aloud what was recognised."""
    adapted = adapt(path, overrides)
    with atomic_write(out) as aside:
        onnx.save(adapted, aside)
    record = read_adapted(adapted)
    assert record is not None
    spec, normal = record.spec, record.normalization
    print(f"adapt: head {record.head}, {len(spec.class_names)} classes, {spec.width}x{spec.height}, {normal.order}")
    print(f"       {spec.placement} letterbox on {spec.pad_value}, scale {normal.scale:.4g}, top {record.candidates}")
    if record.source_batch and overrides.keep_batch:
        print("       batch: stays fixed at 1; a batch is served image by image")
    elif record.source_batch:
        checked = record.source_batch + 1
        print(f"       batch: was fixed at {record.source_batch}, is dynamic now (checked on a batch of {checked})")
    return record


def parse_size(text: str) -> tuple[int, int]:
    """Width and height of `640x480`, or of `640` for a square."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdigit() and int(side) for side in sides):
        raise argparse.ArgumentTypeError(f"expected a size like 640x480 (width x height) or 640, but got {text!r}")
    return int(sides[0]), int(sides[-1])


def parse_triple(text: str) -> tuple[float, float, float]:
    """The three numbers of `0.485,0.456,0.406`; one number stands for all three channels."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3:
        raise argparse.ArgumentTypeError(f"expected three numbers like 0.485,0.456,0.406, or one, but got {text!r}")
    return numbers[0], numbers[1], numbers[2]


def read_names(path: Path) -> list[str]:
    """Class names from a text file, one a line, or from the header of an Ultralytics `.engine`.

    Raises:
        BuildError: the file is missing, or has none.
    """
    if not path.is_file():
        raise BuildError(f"there is no file of class names {path}")
    if path.suffix.lower() in ENGINES:
        return engine_names(path)
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise BuildError(f"{path} is no UTF-8 text; write the class names one a line") from error
    if not names:
        raise BuildError(f"{path} holds no class names; write one a line")
    return names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this step. Each overrides what the head's family is known for."""
    group = parser.add_argument_group("adapt", "what the model expects; by default as its family is known for")
    group.add_argument(
        "--head", choices=[head.name for head in heads.HEADS], help="the head, instead of recognising it"
    )
    group.add_argument("--size", type=parse_size, metavar="WxH", help="input size of a model exported without one")
    group.add_argument(
        "--names", type=Path, metavar="FILE", help="class names, one a line, or an .engine; default: from the model"
    )
    group.add_argument("--order", choices=("rgb", "bgr"), help="channel order of the input")
    group.add_argument("--scale", type=float, help="factor on the pixel values 0..255, before mean and std")
    group.add_argument("--mean", type=parse_triple, metavar="A,B,C", help="subtracted after the scale")
    group.add_argument("--std", type=parse_triple, metavar="A,B,C", help="divided by after the mean")
    group.add_argument("--placement", choices=get_args(Placement), help="where the image lies in the letterbox")
    group.add_argument("--pad-value", type=int, metavar="0..255", help="grey level of the letterbox's border")
    group.add_argument("--score-threshold", type=float, help="default for requests that name none (0.25)")
    group.add_argument("--iou-threshold", type=float, help="default for requests that name none; 1: no suppression")
    group.add_argument(
        "--keep-batch",
        action="store_true",
        help="serve a model of batch 1 image by image; do not open its batch",
    )


def overrides_from(arguments: argparse.Namespace) -> Overrides:
    """The options of this step as a value."""
    given = {field.name: getattr(arguments, field.name) for field in fields(Overrides)}
    return Overrides(**given | {"names": read_names(arguments.names) if arguments.names else None})


def main() -> None:
    """Run this step alone."""
    parser = argparse.ArgumentParser(prog="python build/adapt.py", description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", type=Path, help="the detector's ONNX")
    parser.add_argument("--out", type=Path, required=True, help="the adapted ONNX")
    add_arguments(parser)
    arguments = parser.parse_args()
    adapt_file(arguments.model, arguments.out, overrides_from(arguments))


if __name__ == "__main__":
    run(main)
