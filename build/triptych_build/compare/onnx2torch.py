"""An adapted ONNX as a torch module: onnx2torch, and what it lacks for our graphs.

It knows operators up to opset 17 or so. A newer version of one is converted like the last that it knows, as long as
the node uses nothing that came since. Its Slice indexes in a way that torch is giving up, so ours replaces it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import torch
from google.protobuf.message import DecodeError

from triptych.contract import PIXELS
from triptych.errors import BuildError


@contextlib.contextmanager
def _torchvision_or_less() -> Iterator[None]:
    """Have torchvision there while onnx2torch is imported, or an empty module where it does not start.

    onnx2torch needs it for NonMaxSuppression and RoiAlign alone, and pip gives a torch without CUDA a torchvision
    with CUDA, which fails on import.
    """
    try:
        import torchvision  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        absent = {name: ModuleType(name) for name in ("torchvision", "torchvision.ops")}
        absent["torchvision"].__dict__["ops"] = absent["torchvision.ops"]
        absent["torchvision.ops"].__dict__.update(nms=_no_torchvision, roi_align=_no_torchvision)
        sys.modules.update(absent)
        try:
            yield
        finally:
            for name in absent:
                del sys.modules[name]
    else:
        yield


def _no_torchvision(*_: object, **__: object) -> None:
    raise RuntimeError(
        "its NonMaxSuppression or RoiAlign needs a torchvision that fits this torch; install both from one index"
    )


with _torchvision_or_less():
    import onnx2torch
    from onnx2torch.node_converters.reduce import OnnxReduceStaticAxes
    from onnx2torch.node_converters.registry import add_converter, get_converter
    from onnx2torch.node_converters.slice import OnnxSlice
    from onnx2torch.utils.common import OnnxMapping, OperationConverterResult, get_const_value

NEWEST_OPSET = 22
"""Up to here newer versions of an operator are known to differ only in types and in a node's attributes and inputs."""

Converter = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Converted:
    """An adapted ONNX in torch.

    Attributes:
        module: pixels uint8 [N, H, W, 3] to candidates float32 [N, K, 6], in evaluation mode.
        input_shape: height, width and channels of one image.
        one_by_one: the batch is fixed at 1.
    """

    module: torch.nn.Module
    input_shape: tuple[int, int, int]
    one_by_one: bool


def convert(path: Path) -> Converted:
    """Convert an adapted ONNX to a torch module.

    Raises:
        BuildError: the file is not an adapted ONNX, or holds operators that onnx2torch does not know; it names them.
    """
    try:
        model = onnx.load(path)
    except (DecodeError, OSError) as error:
        raise BuildError(f"{path} cannot be read as ONNX ({error}); build it again") from error
    inputs = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.input}
    if PIXELS.name not in inputs:
        raise BuildError(f"{path} takes no {PIXELS.name}; run `triptych adapt {path} --out ADAPTED.onnx`")
    unknown = _unknown_operators(model)
    if unknown:
        raise BuildError(f"onnx2torch has no converter for {', '.join(unknown)}, which {path} holds")
    for node in model.graph.node:
        node.ClearField("name")  # onnx2torch numbers nodes without a name, and a number can be the name of another
    try:
        module = onnx2torch.convert(model)
    except (NotImplementedError, KeyError, ValueError) as error:
        raise BuildError(f"onnx2torch cannot convert {path}: {error}") from error
    for name, child in list(module.named_modules()):
        if isinstance(child, OnnxSlice):
            module.add_submodule(name, Slice())
    batch, height, width, channels = inputs[PIXELS.name]
    return Converted(module.eval(), (height, width, channels), batch == 1)


def _unknown_operators(model: onnx.ModelProto) -> list[str]:
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    unknown = set()
    for node in model.graph.node:
        opset = opsets.get(node.domain, 1)
        try:
            get_converter(node.op_type, opset, node.domain)
        except NotImplementedError:
            unknown.add(f"{node.domain + '.' if node.domain else ''}{node.op_type} of opset {opset}")
    return sorted(unknown)


class Slice(torch.nn.Module):  # type: ignore[misc]  # torch is optional, and Any to mypy
    """ONNX's Slice."""

    def forward(
        self,
        data: torch.Tensor,
        starts: torch.Tensor,
        ends: torch.Tensor,
        axes: torch.Tensor | None = None,
        steps: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the part of `data` from `starts` to `ends` along `axes`."""
        count = len(starts)
        along = range(count) if axes is None else axes.tolist()
        strides = [1] * count if steps is None else steps.tolist()
        index = [slice(None)] * data.dim()
        for axis, start, end, step in zip(along, starts.tolist(), ends.tolist(), strides, strict=True):
            if step < 0:  # which torch does not know
                data, start, end, step = data.flip(axis), -start - 1, -end - 1, -step
            index[axis] = slice(start, end, step)
        return data[tuple(index)]


def _known(operator: str, version: int) -> Converter | None:
    with contextlib.suppress(NotImplementedError):
        converter: Converter = get_converter(operator, version)
        return converter
    return None


def _convert_as_older(convert_older: Converter, older: Any, newer: Any, node: Any, graph: Any) -> Any:
    """Convert a node of a newer version like the older one, if it uses nothing that came since."""
    defaults = {name: onnx.helper.get_attribute_value(a.default_value) for name, a in newer.attributes.items()}
    for name, value in node.attributes.items():
        usual = defaults[name].decode() if isinstance(defaults[name], bytes) else defaults[name]
        # The parts of a Split are counted by its outputs as well.
        if name not in older.attributes and value != usual and name != "num_outputs":
            raise NotImplementedError(f"{node.operation_type} with {name} = {value}")
    if len(node.input_values) > older.max_input:
        raise NotImplementedError(f"{node.operation_type} with {len(node.input_values)} inputs")
    return convert_older(node, graph)


def _convert_reduction(node: Any, graph: Any) -> Any:
    """Convert ReduceMax and its kind from opset 18 on, whose axes are an input."""
    data, *rest = node.input_values
    axes = get_const_value(rest[0], graph).tolist() if rest and rest[0] else None
    if axes is None and node.attributes.get("noop_with_empty_axes"):
        raise NotImplementedError(f"{node.operation_type} with noop_with_empty_axes and no axes")
    return OperationConverterResult(
        torch_module=OnnxReduceStaticAxes(node.operation_type, axes, node.attributes.get("keepdims", 1)),
        onnx_mapping=OnnxMapping(inputs=(data,), outputs=node.output_values),
    )


def _register_newer_versions() -> None:
    history = [schema for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == onnx.defs.ONNX_DOMAIN]
    for newer in sorted(history, key=lambda schema: schema.since_version):
        version = newer.since_version
        if not 13 < version <= NEWEST_OPSET or _known(newer.name, version):
            continue
        older = max(
            (schema for schema in history if schema.name == newer.name and schema.since_version < version),
            key=lambda schema: schema.since_version,
            default=None,
        )
        convert_older = older and _known(newer.name, older.since_version)
        if newer.name.startswith("Reduce"):
            add_converter(newer.name, version)(_convert_reduction)
        elif convert_older:
            add_converter(newer.name, version)(partial(_convert_as_older, convert_older, older, newer))


_register_newer_versions()
