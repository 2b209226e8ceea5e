"""What TensorRT gets before it builds: the network, its precision, its profiles, and the builder's options.

From TensorRT 10 on the network is strongly typed: the graph itself says each precision (`triptych quantize` puts it
there). TensorRT 8 has no strong types: the float32 graph is built with precision flags, and the layers that need
float32 are held to it. TensorRT for RTX is strongly typed, and builds without a GPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import onnx

from triptych.errors import BuildError
from triptych.packages import install_command
from triptych.runtimes import _tensorrt
from triptych_build.quantize.narrow import narrow, wide_nodes
from triptych_build.quantize.qdq import activation_limits, quantized_layers, without_pairs
from triptych_build.tensorrt.options import Builder, Options, Profile

EXTRAS: dict[Builder, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}
"""The extra that holds each builder's packages."""


def library(builder: Builder) -> Any:
    """Import the builder's Python API.

    Raises:
        BuildError: it is not installed.
    """
    try:
        return _tensorrt.library(builder)
    except ImportError as error:
        hint = install_command(EXTRAS[builder])
        raise BuildError(f"{builder} is not installed ({error}); run `{hint}`") from error


def describe(
    trt: ModuleType, builder: Any, logger: Any, model: onnx.ModelProto, precision: str, options: Options
) -> tuple[Any, Any]:
    """Return the network and the configuration that a plan is built from.

    Args:
        trt: the library.
        builder: its builder.
        logger: from `triptych.runtimes._tensorrt.make_logger`.
        model: an adapted graph in float32, or with Q/DQ pairs for int8.
        precision: "fp32", "fp16", "bf16" or "int8".
        options: how to build.

    Raises:
        BuildError: the library cannot do what is asked, or refuses the graph.
    """
    network, config = _network(trt, builder), builder.create_builder_config()
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(_graph(trt, model, precision).SerializeToString()):
        reasons = "; ".join(_reason(parser.get_error(at)) for at in range(parser.num_errors))
        raise BuildError(f"{options.builder} {trt.__version__} does not take the graph in {precision}: {reasons}")
    if not _is_typed(trt):
        _set_flags(trt, network, config, model, precision)
    elif precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)
    _set_profiles(builder, network, config, options.profiles)
    _configure(trt, config, options)
    return network, config


def _is_typed(trt: ModuleType) -> bool:
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def _network(trt: ModuleType, builder: Any) -> Any:
    flag = trt.NetworkDefinitionCreationFlag
    return builder.create_network(1 << int(flag.STRONGLY_TYPED if _is_typed(trt) else flag.EXPLICIT_BATCH))


def _graph(trt: ModuleType, model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """Return the graph to build: one that says its own precision, or for TensorRT 8 the float32 one."""
    if not _is_typed(trt):
        return without_pairs(model)
    # In int8, what is not quantized runs in fp16.
    return model if precision == "fp32" else narrow(model, "fp16" if precision == "int8" else precision)


def _set_flags(trt: ModuleType, network: Any, config: Any, model: onnx.ModelProto, precision: str) -> None:
    """Set the precision of TensorRT 8 by flags; layers that need it are held to float32, and in int8 to fp16.

    Q/DQ pairs become the ranges of the tensors that they stood on. TensorRT 8 also takes the pairs themselves, but
    then it must run everything between two of them in int8, and has no kernels for some of that.
    """
    if precision == "bf16":
        raise BuildError(f"TensorRT {trt.__version__} has no bf16; build fp16, or take TensorRT 10.12 or newer")
    if precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)
        return
    config.set_flag(trt.BuilderFlag.FP16)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    wide = {name for at in wide_nodes(model) for name in model.graph.node[at].output}
    for layer in layers_of(network):
        outputs = [layer.get_output(at) for at in range(layer.num_outputs)]
        if layer.type != trt.LayerType.CONSTANT and any(output.name in wide for output in outputs):
            _hold(layer, trt.float32, trt.float32)
    if precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)
        _set_ranges(trt, network, model)


def _set_ranges(trt: ModuleType, network: Any, model: onnx.ModelProto) -> None:
    """Tell TensorRT 8 the range of each quantized activation, and hold what was left in float to fp16."""
    limits = activation_limits(model)
    quantized = set(quantized_layers(model))
    same = (trt.LayerType.CONCATENATION, trt.LayerType.POOLING, trt.LayerType.RESIZE, trt.LayerType.ACTIVATION)
    for layer in reversed(list(layers_of(network))):
        limit = limits.get(layer.get_output(0).name) if layer.num_outputs else None
        if limit is not None and (layer.type in same or _is_sum(trt, layer)):
            # What goes into a concatenation, a ReLU or a residual's sum is held in the range of what comes out.
            for at in range(layer.num_inputs):
                limits.setdefault(layer.get_input(at).name, limit)
    for layer in layers_of(network):
        if layer.type in (trt.LayerType.CONVOLUTION, trt.LayerType.DECONVOLUTION) and layer.name not in quantized:
            _hold(layer, trt.float16, trt.float32)
        for tensor in (*_tensors(layer.num_inputs, layer.get_input), *_tensors(layer.num_outputs, layer.get_output)):
            if tensor.name in limits:
                tensor.set_dynamic_range(-limits[tensor.name], limits[tensor.name])


def _is_sum(trt: ModuleType, layer: Any) -> bool:
    if layer.type != trt.LayerType.ELEMENTWISE:
        return False
    layer.__class__ = trt.IElementWiseLayer  # TensorRT's own way to a layer's further attributes
    return bool(layer.op == trt.ElementWiseOperation.SUM)


def _tensors(count: int, get: Callable[[int], Any]) -> list[Any]:
    return [tensor for tensor in map(get, range(count)) if tensor is not None]


def _hold(layer: Any, kind: Any, float32: Any) -> None:
    """Hold a layer that calculates in floats to one kind of them."""
    for at, output in enumerate(_tensors(layer.num_outputs, layer.get_output)):
        if output.dtype == float32:
            layer.precision = kind
            layer.set_output_type(at, kind)


def _set_profiles(builder: Any, network: Any, config: Any, profiles: tuple[Profile, ...]) -> None:
    """Add optimization profiles, or set static shapes for a single fixed one."""
    pixels = network.get_input(0)
    batch, *image = tuple(pixels.shape)
    if batch != -1 and any(profile != Profile(batch, batch, batch) for profile in profiles):
        raise BuildError(
            f"the graph has a fixed batch of {batch}, but the profiles ask for {' and '.join(map(str, profiles))}; "
            f"build it with --profile {batch}, or export it with a dynamic batch"
        )
    if len(profiles) == 1 and profiles[0].is_fixed:
        pixels.shape = (profiles[0].max, *image)
        return
    for profile in profiles:
        shapes = builder.create_optimization_profile()
        shapes.set_shape(pixels.name, *((size, *image) for size in (profile.min, profile.opt, profile.max)))
        config.add_optimization_profile(shapes)


def _configure(trt: ModuleType, config: Any, options: Options) -> None:
    def need(owner: Any, name: str, option: str) -> None:
        if not hasattr(owner, name):
            raise BuildError(f"{options.builder} {trt.__version__} has no {name}; leave {option} out")

    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.builder == "tensorrt-rtx":
        _configure_rtx(trt, config, options)
        return
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.level is not None:
        need(config, "builder_optimization_level", "--level")
        config.builder_optimization_level = options.level
    if options.version_compatible:
        need(trt.BuilderFlag, "VERSION_COMPATIBLE", "--version-compatible")
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware != "none":
        need(config, "hardware_compatibility_level", "--hardware")
        level = getattr(trt.HardwareCompatibilityLevel, options.hardware.upper(), None)
        if level is None:
            raise BuildError(f"{options.builder} {trt.__version__} has no hardware compatibility {options.hardware}")
        config.hardware_compatibility_level = level
    if options.dla_core is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla_core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    if _lacks_cuda_libraries(trt):
        # TensorRT 8 without cuBLAS and cuDNN; a convolutional detector does not miss them.
        kinds = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
        config.set_tactic_sources(sum(1 << int(getattr(trt.TacticSource, kind)) for kind in kinds))
    if options.timing_cache:
        timings = options.timing_cache.read_bytes() if options.timing_cache.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(timings), ignore_mismatch=False)


def _configure_rtx(trt: ModuleType, config: Any, options: Options) -> None:
    """Configure TensorRT for RTX, which needs to know nothing but the GPUs to build for."""
    config.num_compute_capabilities = len(options.compute_capabilities)
    for at, name in enumerate(options.compute_capabilities):
        capability = getattr(trt.ComputeCapability, f"SM{name.replace('.', '')}", None)
        if capability is None:
            raise BuildError(f"TensorRT for RTX {trt.__version__} does not build for compute capability {name}")
        config.set_compute_capability(capability, at)


def _lacks_cuda_libraries(trt: ModuleType) -> bool:
    """Return whether this TensorRT tries cuBLAS by default, on a machine that has none of its version."""
    if not hasattr(trt.TacticSource, "CUBLAS"):
        return False
    try:
        return not hasattr(ctypes.CDLL("libcublas.so.11"), "cublasGetProperty")
    except OSError:
        return True


def _reason(error: Any) -> str:
    """Return what the parser says, with the node that it means where this TensorRT names it."""
    where = f"{error.node_operator()} {error.node_name()}: " if hasattr(error, "node_operator") else ""
    return f"{where}{error.desc()}"


def layers_of(network: Any) -> Iterator[Any]:
    """Yield the layers of a network."""
    return (network.get_layer(at) for at in range(network.num_layers))
