"""Build a TensorRT plan from an adapted ONNX.

    python build/engine.py ADAPTED.onnx --precision fp16 --out model.plan

`--builder tensorrt-rtx` builds for TensorRT for RTX, and needs no GPU.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console

from triptych.cli.console import run
from triptych.contract import PIXELS
from triptych.errors import BuildError
from triptych.files import atomic_write
from triptych.machine import nvidia_gpus
from triptych.runtimes._tensorrt import make_logger
from triptych_build.adapt import adapter as adapt
from triptych_build.quantize import quantize
from triptych_build.tensorrt.network import BUILDERS, HARDWARE, Builder, Options, describe, layers_of, library
from triptych_build.tensorrt.plan import Binding, Engine, Profile, record_path

DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8"}


def build(graph: Path, precision: str, out: Path, options: Options) -> Engine:
    """Build a plan and write it with its record (`out` and `out`.json), both whole or not there.

    Args:
        graph: an adapted ONNX in float32, or one with Q/DQ pairs for int8.
        precision: "fp32", "fp16", "bf16" or "int8".
        out: the plan.
        options: how to build.

    Raises:
        BuildError: the library is not installed, cannot do what is asked, or refuses the graph.
    """
    trt = library(options.builder)
    logger = make_logger(trt)
    try:
        builder = trt.Builder(logger)
    except (RuntimeError, TypeError) as error:
        raise BuildError(
            f"{options.builder} {trt.__version__} does not start here: {logger.last_words() or error}"
        ) from error
    source, adapted = adapt.read_adapted_file(graph)
    quantize.check_precision(source, precision, graph)
    network, config = describe(trt, builder, logger, source, precision, options)
    began = time.monotonic()
    with Console(stderr=True).status(f"{options.builder} {trt.__version__} builds {precision}"):
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(
            f"{options.builder} {trt.__version__} could not build {graph} in {precision}: {logger.last_words()}"
        )
    build_s = time.monotonic() - began
    if options.timing_cache:
        with atomic_write(options.timing_cache) as aside:
            aside.write_bytes(memoryview(config.get_timing_cache().serialize()))
    plan_bytes = bytes(memoryview(plan))
    table, layers_from = _layer_table(trt, logger, network, plan_bytes, options.builder, options.profiles)
    engine = Engine(
        builder=options.builder,
        version=trt.__version__,
        precision=precision,
        **machine(options),
        hardware_compatibility=options.hardware,
        version_compatible=options.version_compatible,
        profiles=options.profiles,
        inputs=tuple(_binding(network.get_input(at)) for at in range(network.num_inputs)),
        outputs=tuple(_binding(network.get_output(at)) for at in range(network.num_outputs)),
        plan_bytes=len(plan_bytes),
        build_s=round(build_s, 2),
        layers=dict(Counter(layer["precision"] for layer in table)),
        layers_from=layers_from,
    )
    record = {"adapted": asdict(adapted), "engine": engine.to_dict(), "layers": table}
    try:
        with atomic_write(out) as plan_aside, atomic_write(record_path(out)) as record_aside:
            plan_aside.write_bytes(plan_bytes)
            record_aside.write_text(json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise BuildError(
            f"cannot write {out} and its record: {error.strerror or error}; neither was changed"
        ) from error
    return engine


def machine(options: Options) -> dict[str, Any]:
    """The GPU that was built on; for TensorRT for RTX, the GPUs that were built for."""
    if options.builder == "tensorrt-rtx":
        return {"compute_capabilities": options.compute_capabilities, "gpu": None, "driver": None, "cuda": None}
    gpus = nvidia_gpus()  # a Jetson has no nvidia-smi
    if not gpus:
        return {"compute_capabilities": (), "gpu": None, "driver": None, "cuda": None}
    gpu = gpus[0]
    capabilities = (gpu.compute_capability,)
    return {"compute_capabilities": capabilities, "gpu": gpu.name, "driver": gpu.driver, "cuda": _cuda_version()}


def _cuda_version() -> str | None:
    """The newest CUDA that the driver runs, such as "13.0"; None where CUDA's Python API is not installed."""
    try:
        from cuda.bindings import runtime
    except ImportError:
        return None
    error, number = runtime.cudaDriverGetVersion()
    return f"{number // 1000}.{number % 1000 // 10}" if int(error) == 0 else None


def _binding(tensor: Any) -> Binding:
    return Binding(tensor.name, _dtype(tensor), tuple(tensor.shape))


def _layer_table(
    trt: ModuleType, logger: Any, network: Any, plan: bytes, builder: str, profiles: tuple[Profile, ...]
) -> tuple[list[dict[str, str]], str]:
    """Each layer's name, kind and precision: the inspector's word where the plan can be opened, else the network's."""
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan) if builder == "tensorrt" else None
    if engine is None:
        return _network_rows(trt, network), "network"
    inspector = engine.create_engine_inspector()
    context = engine.create_execution_context()
    if context is not None:
        # With dynamic shapes it tells formats only of a context that has its shapes.
        context.set_input_shape(PIXELS.name, (profiles[0].opt, *engine.get_tensor_shape(PIXELS.name)[1:]))
        inspector.execution_context = context
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    return [_inspected_row(layer) for layer in json.loads(text)["Layers"]], "plan"


def _network_rows(trt: ModuleType, network: Any) -> list[dict[str, str]]:
    """The layers that compute: neither constants nor arithmetic on shapes."""
    kinds = trt.LayerType
    matrix = (kinds.CONVOLUTION, kinds.DECONVOLUTION, kinds.MATRIX_MULTIPLY)
    quantized = {layer.get_output(0).name for layer in layers_of(network) if layer.type == kinds.DEQUANTIZE}
    rows = []
    for layer in layers_of(network):
        if layer.type in (kinds.CONSTANT, kinds.QUANTIZE, kinds.DEQUANTIZE) or not layer.num_outputs:
            continue
        precision = DTYPES.get(_dtype(layer.get_output(0)))
        if layer.type in matrix and layer.get_input(0).name in quantized:
            precision = "int8"  # fused with the pair before it
        if precision:
            rows.append({"name": layer.name, "kind": layer.type.name.lower(), "precision": precision})
    return rows


def _dtype(tensor: Any) -> str:
    """A tensor's type by NumPy's name."""
    name = tensor.dtype.name.lower()
    return {"float": "float32", "half": "float16", "bf16": "bfloat16"}.get(name, name)


def _inspected_row(layer: dict[str, Any] | str) -> dict[str, str]:
    if isinstance(layer, str):
        return {"name": layer, "kind": "?", "precision": "?"}
    weights = str(layer.get("Weights", {}).get("Type", "")) if isinstance(layer.get("Weights"), dict) else ""
    formats = " ".join([weights, *(str(tensor.get("Format/Datatype", "")) for tensor in layer.get("Inputs", []))])
    known = {"int8": "int8", "fp16": "fp16", "half": "fp16", "bf16": "bf16", "fp32": "fp32", "float": "fp32"}
    precision = next((name for word, name in known.items() if word in formats.lower()), "unknown")
    return {"name": str(layer.get("Name", "?")), "kind": str(layer.get("LayerType", "?")), "precision": precision}


# --- the step --------------------------------------------------------------------------------------------------------


def parse_profile(text: str) -> Profile:
    """`1,8,16` as min, opt and max; `4` as a fixed batch."""
    parts = text.split(",")
    if len(parts) not in (1, 3) or not all(part.strip().isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"expected min,opt,max like 1,8,16, or one fixed batch, but got {text!r}")
    sizes = [int(part) for part in parts]
    return Profile(*sizes) if len(sizes) == 3 else Profile(sizes[0], sizes[0], sizes[0])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this step."""
    options = parser.add_argument_group("engine", "for TensorRT plans")
    options.add_argument(
        "--profile",
        type=parse_profile,
        action="append",
        metavar="MIN,OPT,MAX",
        help=f"batch sizes, or one fixed; repeat it for several profiles ({Profile()})",
    )
    options.add_argument("--workspace", type=int, metavar="MIB", help="most scratch memory of a layer")
    options.add_argument("--timing-cache", type=Path, metavar="FILE", help="remembers kernel timings between builds")
    options.add_argument("--level", type=int, choices=range(6), help="builder optimization level")
    options.add_argument("--version-compatible", action="store_true", help="loads in later versions of TensorRT")
    options.add_argument("--hardware", choices=HARDWARE, default="none", help="loads on other GPUs too")
    options.add_argument(
        "--compute-capability", action="append", metavar="X.Y", help="what TensorRT for RTX builds for (8.9)"
    )
    options.add_argument("--dla-core", type=int, metavar="N", help="a Jetson's DLA core; the GPU takes the rest")


def options_from(arguments: argparse.Namespace, builder: Builder) -> Options:
    """The options of this step as a value."""
    return Options(
        builder=builder,
        profiles=tuple(arguments.profile or Options.profiles),
        workspace_mib=arguments.workspace,
        timing_cache=arguments.timing_cache,
        level=arguments.level,
        version_compatible=arguments.version_compatible,
        hardware=arguments.hardware,
        compute_capabilities=tuple(arguments.compute_capability or Options.compute_capabilities),
        dla_core=arguments.dla_core,
    )


def main() -> None:
    """Run this step alone."""
    parser = argparse.ArgumentParser(prog="python build/engine.py", description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", type=Path, help="an adapted ONNX; in int8, one with Q/DQ pairs")
    parser.add_argument("--precision", choices=quantize.PRECISIONS, default="fp32")
    parser.add_argument("--builder", choices=BUILDERS, default="tensorrt")
    parser.add_argument("--out", type=Path, required=True, help="the plan; its record goes beside it")
    add_arguments(parser)
    arguments = parser.parse_args()
    engine = build(arguments.model, arguments.precision, arguments.out, options_from(arguments, arguments.builder))
    print(summary(engine, arguments.out))


def summary(engine: Engine, plan: Path) -> str:
    """One line on a plan."""
    layers = ", ".join(f"{count} {precision}" for precision, count in sorted(engine.layers.items()))
    profiles = " and ".join(map(str, engine.profiles))
    return (
        f"engine: {plan} by {engine.builder} {engine.version} in {engine.build_s:.1f} s, "
        f"{engine.plan_bytes / 1e6:.1f} MB, batch {profiles}; layers of the {engine.layers_from}: {layers}"
    )


if __name__ == "__main__":
    run(main)
