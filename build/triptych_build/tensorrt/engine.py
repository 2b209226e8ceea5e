"""Build a TensorRT plan from an adapted ONNX. TensorRT for RTX builds without a GPU."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from triptych.errors import BuildError
from triptych.files import atomic_write
from triptych.machine import nvidia_gpus
from triptych.runtimes._inspector import UNKNOWN
from triptych.runtimes._tensorrt import make_logger
from triptych_build.adapt.onnx_file import read_adapted_file
from triptych_build.quantize.precision import check_precision
from triptych_build.quantize.qdq import coverage
from triptych_build.tensorrt.layers import dtype_of, layer_table
from triptych_build.tensorrt.network import describe, library
from triptych_build.tensorrt.options import Options, check_candidates
from triptych_build.tensorrt.plan import Binding, Engine, record_path


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
    source, adapted = read_adapted_file(graph)
    check_candidates(adapted.candidates)
    trt = library(options.builder)
    logger = make_logger(trt)
    builder = _builder(trt, logger, options)
    check_precision(source, precision, graph)
    network, config = describe(trt, builder, logger, source, precision, options)
    began = time.monotonic()
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise BuildError(
            f"{options.builder} {trt.__version__} could not build {graph} in {precision}: {logger.last_words()}"
        )
    build_s = time.monotonic() - began
    if options.timing_cache:
        with atomic_write(options.timing_cache) as aside:
            aside.write_bytes(memoryview(config.get_timing_cache().serialize()))
    plan = bytes(memoryview(serialized))
    layers, layers_from = layer_table(trt, logger, network, plan, options.builder, options.profiles)
    _check_realised(layers, precision, graph, f"{options.builder} {trt.__version__}")
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
        plan_bytes=len(plan),
        build_s=round(build_s, 2),
        layers=dict(Counter(layer["precision"] for layer in layers)),
        layers_from=layers_from,
    )
    int8 = coverage(source).to_dict() if precision == "int8" else None
    _write(out, plan, {"adapted": asdict(adapted), "engine": engine.to_dict(), "layers": layers, "int8": int8})
    return engine


def _check_realised(layers: list[dict[str, str]], precision: str, graph: Path, builder: str) -> None:
    """Refuse a plan none of whose layers has the precision that it is to have: the graph alone says it from 11 on."""
    found = Counter(layer["precision"] for layer in layers if layer["precision"] not in UNKNOWN)
    if found and precision not in found:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(found.items()))
        raise BuildError(
            f"{builder} built no layer of {graph} in {precision} ({counts}); its weights or activations are "
            "beyond that precision, or it has no Conv, Gemm or MatMul: build fp32"
        )


def _builder(trt: ModuleType, logger: Any, options: Options) -> Any:
    try:
        return trt.Builder(logger)
    except (RuntimeError, TypeError) as error:
        raise BuildError(
            f"{options.builder} {trt.__version__} does not start here: {logger.last_words() or error}"
        ) from error


def _write(out: Path, plan: bytes, record: dict[str, Any]) -> None:
    try:
        with atomic_write(out) as plan_aside, atomic_write(record_path(out)) as record_aside:
            plan_aside.write_bytes(plan)
            record_aside.write_text(json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise BuildError(
            f"cannot write {out} and its record: {error.strerror or error}; neither was changed"
        ) from error


def machine(options: Options) -> dict[str, Any]:
    """Return the GPU that a plan is built on; for TensorRT for RTX, the GPUs that it is built for."""
    if options.builder == "tensorrt-rtx":
        return {"compute_capabilities": options.compute_capabilities, "gpu": None, "driver": None, "cuda": None}
    gpus = nvidia_gpus()  # a Jetson has no nvidia-smi
    if not gpus:
        return {"compute_capabilities": (), "gpu": None, "driver": None, "cuda": None}
    gpu = gpus[0]
    capabilities = (gpu.compute_capability,)
    return {"compute_capabilities": capabilities, "gpu": gpu.name, "driver": gpu.driver, "cuda": _cuda_version()}


def _cuda_version() -> str | None:
    """Return the newest CUDA that the driver runs, such as "13.0"; None where CUDA's Python API is not installed."""
    try:
        from cuda.bindings import runtime
    except ImportError:
        return None
    error, number = runtime.cudaDriverGetVersion()
    return f"{number // 1000}.{number % 1000 // 10}" if int(error) == 0 else None


def _binding(tensor: Any) -> Binding:
    return Binding(tensor.name, dtype_of(tensor), tuple(tensor.shape))


def summary(engine: Engine, plan: Path) -> str:
    """Return one line on a plan."""
    layers = ", ".join(f"{count} {precision}" for precision, count in sorted(engine.layers.items()))
    profiles = " and ".join(map(str, engine.profiles))
    return (
        f"engine: {plan} by {engine.builder} {engine.version} in {engine.build_s:.1f} s, "
        f"{engine.plan_bytes / 1e6:.1f} MB, batch {profiles}; layers of the {engine.layers_from}: {layers}"
    )
