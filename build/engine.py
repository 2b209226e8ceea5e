"""Build a TensorRT plan from an adapted ONNX.

    python build/engine.py ADAPTED.onnx --precision fp16 --out model.plan

From TensorRT 10 on the network is strongly typed: the graph itself says each precision (`quantize.py` puts it there).
TensorRT 8 has no such networks: there the same float32 or Q/DQ graph is built with precision flags, and the layers
that need float32 are held to it. TensorRT for RTX builds without a GPU (`--builder tensorrt-rtx`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import onnx
from rich.console import Console

import adapt
import quantize
from adapt import Adapted
from triptych.console import run
from triptych.contract import MAX_BATCH, PIXELS
from triptych.errors import BuildError
from triptych.files import write_aside

Builder = Literal["tensorrt", "tensorrt-rtx"]
BUILDERS: dict[str, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    # The wheels come in two parts, and the first loads the libraries of the second.
    "tensorrt-rtx": ("tensorrt_rtx_libs", "tensorrt_rtx_bindings"),
}
"""The modules to import, the last of which is the API, by builder."""

INSTALL = {
    "tensorrt": "pip install tensorrt",
    "tensorrt-rtx": "pip install tensorrt-rtx-cu12-libs tensorrt-rtx-cu12-bindings",
}

HARDWARE = ("none", "ampere_plus", "same_compute_capability")

DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8"}


@dataclass(frozen=True)
class Profile:
    """The batch sizes that one optimization profile covers, and the one that it is tuned for."""

    min: int = 1
    opt: int = 8
    max: int = MAX_BATCH

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            raise BuildError(f"a profile must have 1 <= min <= opt <= max, but got {self.min},{self.opt},{self.max}")

    @property
    def is_fixed(self) -> bool:
        """Whether it covers one batch size alone."""
        return self.min == self.max

    def __str__(self) -> str:
        return str(self.min) if self.is_fixed else f"{self.min},{self.opt},{self.max}"


@dataclass(frozen=True)
class Options:
    """How to build.

    Attributes:
        builder: whose library.
        profiles: one or more; a single fixed one makes a plan of static shapes.
        workspace_mib: most scratch memory of a layer; None leaves TensorRT's own limit.
        timing_cache: a file that remembers how fast each kernel was; None measures anew.
        level: builder optimization level, 0..5; None leaves TensorRT's own.
        version_compatible: the plan loads in later versions of TensorRT too, a little slower.
        hardware: GPUs that the plan loads on beside this one's kind, one of `HARDWARE`.
        compute_capabilities: what TensorRT for RTX builds for, e.g. "8.9"; it needs no GPU at hand.
        dla_core: run what it can on this DLA core of a Jetson; the GPU takes the rest.
    """

    builder: Builder = "tensorrt"
    profiles: tuple[Profile, ...] = (Profile(),)
    workspace_mib: int | None = None
    timing_cache: Path | None = None
    level: int | None = None
    version_compatible: bool = False
    hardware: str = "none"
    compute_capabilities: tuple[str, ...] = ("8.9",)
    dla_core: int | None = None


@dataclass(frozen=True)
class Binding:
    """A tensor that a plan takes or gives; the batch is -1 where it is dynamic."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Engine:
    """What was built, as the plan's own record says: kept beside the plan, since a plan only opens on its GPU.

    Attributes:
        builder, version: the library that built it.
        precision: what was asked for.
        compute_capabilities: the GPUs that it is for, e.g. "9.0".
        gpu, driver, cuda: where it was built; None without a GPU.
        hardware_compatibility, version_compatible: see `Options`.
        profiles: the batch sizes that it takes.
        inputs, outputs: its bindings.
        plan_bytes: its size.
        build_s: how long the build took, in seconds.
        layers: how many layers compute in each precision.
        layers_from: "plan" (the engine inspector's word) or "network" (as it was before fusion; no GPU to ask).
    """

    builder: str
    version: str
    precision: str
    compute_capabilities: tuple[str, ...]
    gpu: str | None
    driver: str | None
    cuda: str | None
    hardware_compatibility: str
    version_compatible: bool
    profiles: tuple[Profile, ...]
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    plan_bytes: int
    build_s: float
    layers: dict[str, int] = field(default_factory=dict)
    layers_from: str = "network"

    @property
    def is_fixed(self) -> bool:
        """Whether it takes one batch size alone."""
        return len(self.profiles) == 1 and self.profiles[0].is_fixed

    @property
    def largest_batch(self) -> int:
        """Of all profiles."""
        return max(profile.max for profile in self.profiles)

    def takes(self, batch: int) -> bool:
        """Whether a profile covers a batch size."""
        return any(profile.min <= batch <= profile.max for profile in self.profiles)

    def to_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Engine:
        """Read back what `to_dict` gave."""
        return cls(
            **stored
            | {
                "compute_capabilities": tuple(stored["compute_capabilities"]),
                "profiles": tuple(Profile(**profile) for profile in stored["profiles"]),
                **{
                    side: tuple(Binding(**binding | {"shape": tuple(binding["shape"])}) for binding in stored[side])
                    for side in ("inputs", "outputs")
                },
            }
        )


def library(builder: str) -> ModuleType:
    """The builder's Python API.

    Raises:
        BuildError: it is not installed.
    """
    try:
        return [import_module(name) for name in BUILDERS[builder]][-1]
    except ImportError as error:
        raise BuildError(f"{builder} is not installed ({error}); run `{INSTALL[builder]}`") from error


@dataclass(frozen=True)
class Record:
    """What lies beside a plan: what it was made of, what was built, and each layer's name, kind and precision."""

    adapted: Adapted
    engine: Engine
    layers: list[dict[str, str]]


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
    logger = _logger(trt)
    try:
        builder = trt.Builder(logger)
    except (RuntimeError, TypeError) as error:
        raise BuildError(
            f"{options.builder} {trt.__version__} does not start here: {logger.last_words() or error}"
        ) from error
    source, adapted = adapt.read_adapted_file(graph)
    quantize.check_precision(source, precision, graph)
    network, config = _network(trt, builder), builder.create_builder_config()
    model = _graph(trt, source, precision)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        reasons = "; ".join(_reason(parser.get_error(at)) for at in range(parser.num_errors))
        raise BuildError(f"{options.builder} {trt.__version__} does not take {graph} in {precision}: {reasons}")
    if not _is_typed(trt):
        _set_flags(trt, network, config, source, precision)
    elif precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)
    _set_profiles(builder, network, config, options.profiles)
    _configure(trt, config, options)
    began = time.monotonic()
    with Console(stderr=True).status(f"{options.builder} {trt.__version__} builds {precision}"):
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(
            f"{options.builder} {trt.__version__} could not build {graph} in {precision}: {logger.last_words()}"
        )
    build_s = time.monotonic() - began
    if options.timing_cache:
        with write_aside(options.timing_cache) as aside:
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
        with write_aside(out) as plan_aside, write_aside(record_path(out)) as record_aside:
            plan_aside.write_bytes(plan_bytes)
            record_aside.write_text(json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise BuildError(
            f"cannot write {out} and its record: {error.strerror or error}; neither was changed"
        ) from error
    return engine


def record_path(plan: Path) -> Path:
    """Where the record of a plan lies."""
    return plan.with_name(f"{plan.name}.json")


def read_record(plan: Path) -> Record:
    """The record of a plan.

    Raises:
        BuildError: it has none that can be read.
    """
    try:
        stored = json.loads(record_path(plan).read_text())
        return Record(adapt.adapted_from(stored["adapted"]), Engine.from_dict(stored["engine"]), stored["layers"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BuildError(
            f"{plan} has no record {record_path(plan).name} that can be read ({error}); build it with build/engine.py"
        ) from error


# --- the network -----------------------------------------------------------------------------------------------------


def _is_typed(trt: ModuleType) -> bool:
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def _network(trt: ModuleType, builder: Any) -> Any:
    flag = trt.NetworkDefinitionCreationFlag
    return builder.create_network(1 << int(flag.STRONGLY_TYPED if _is_typed(trt) else flag.EXPLICIT_BATCH))


def _graph(trt: ModuleType, model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """The graph to build: one that says its own precision, or for TensorRT 8 the float32 one."""
    quantize.named(model)
    if not _is_typed(trt):
        return quantize.without_pairs(model)
    # In int8, what is not quantized runs in fp16.
    return model if precision == "fp32" else quantize.narrow(model, "fp16" if precision == "int8" else precision)


def _set_flags(trt: ModuleType, network: Any, config: Any, model: onnx.ModelProto, precision: str) -> None:
    """TensorRT 8: precision by flags, held to float32, and in int8 to fp16, for the layers that need it.

    Q/DQ pairs become the ranges of the tensors that they stood on. TensorRT 8 also takes the pairs themselves, but
    then it must run all of what lies between two of them in int8, and has no kernels for some of that.
    """
    if precision == "bf16":
        raise BuildError(f"TensorRT {trt.__version__} has no bf16; build fp16, or take TensorRT 10.12 or newer")
    if precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)
        return
    config.set_flag(trt.BuilderFlag.FP16)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    wide = {name for at in quantize.wide_nodes(model.graph) for name in model.graph.node[at].output}
    for layer in _layers(network):
        outputs = [layer.get_output(at) for at in range(layer.num_outputs)]
        if layer.type != trt.LayerType.CONSTANT and any(output.name in wide for output in outputs):
            _hold(layer, trt.float32, trt.float32)
    if precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)
        _set_ranges(trt, network, model)


def _set_ranges(trt: ModuleType, network: Any, model: onnx.ModelProto) -> None:
    """Tell TensorRT 8 the range of each quantized activation, and hold what was left in float to fp16."""
    limits = quantize.activation_limits(model)
    quantized = set(quantize.quantized_layers(model))
    same = (trt.LayerType.CONCATENATION, trt.LayerType.POOLING, trt.LayerType.RESIZE, trt.LayerType.ACTIVATION)
    for layer in reversed(list(_layers(network))):
        found = limits.get(layer.get_output(0).name) if layer.num_outputs else None
        if found is not None and layer.type in same:
            # What goes into a concatenation or a ReLU is held in the range of what comes out.
            for at in range(layer.num_inputs):
                limits.setdefault(layer.get_input(at).name, found)
    for layer in _layers(network):
        if layer.type in (trt.LayerType.CONVOLUTION, trt.LayerType.DECONVOLUTION) and layer.name not in quantized:
            _hold(layer, trt.float16, trt.float32)
        for tensor in (*_tensors(layer.num_inputs, layer.get_input), *_tensors(layer.num_outputs, layer.get_output)):
            if tensor.name in limits:
                tensor.set_dynamic_range(-limits[tensor.name], limits[tensor.name])


def _tensors(count: int, get: Callable[[int], Any]) -> list[Any]:
    return [tensor for tensor in map(get, range(count)) if tensor is not None]


def _hold(layer: Any, kind: Any, float32: Any) -> None:
    """Hold a layer that calculates in floats to one kind of them."""
    for at, output in enumerate(_tensors(layer.num_outputs, layer.get_output)):
        if output.dtype == float32:
            layer.precision = kind
            layer.set_output_type(at, kind)


def _set_profiles(builder: Any, network: Any, config: Any, profiles: tuple[Profile, ...]) -> None:
    """Optimization profiles, or static shapes for a single fixed one."""
    pixels = network.get_input(0)
    batch, *image = tuple(pixels.shape)
    if batch != -1 and any(profile != Profile(batch, batch, batch) for profile in profiles):
        raise BuildError(
            f"the graph has a fixed batch of {batch}, but the profiles ask for {' and '.join(map(str, profiles))}; "
            f"build it with --batch {batch}, or export it with a dynamic batch"
        )
    if len(profiles) == 1 and profiles[0].is_fixed:
        pixels.shape = (profiles[0].max, *image)
        return
    for each in profiles:
        profile = builder.create_optimization_profile()
        profile.set_shape(pixels.name, *((size, *image) for size in (each.min, each.opt, each.max)))
        config.add_optimization_profile(profile)


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
        # TensorRT 8 without cuBLAS and cuDNN beside it; a convolutional detector does not miss them.
        kinds = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
        config.set_tactic_sources(sum(1 << int(getattr(trt.TacticSource, kind)) for kind in kinds))
    if options.timing_cache:
        seen = options.timing_cache.read_bytes() if options.timing_cache.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(seen), ignore_mismatch=False)


def _configure_rtx(trt: ModuleType, config: Any, options: Options) -> None:
    """TensorRT for RTX chooses its kernels on the user's own GPU, when the plan is first run there."""
    habit = Options()
    for name, option in (
        ("timing_cache", "--timing-cache"),
        ("version_compatible", "--version-compatible"),
        ("hardware", "--hardware"),
        ("dla_core", "--dla-core"),
        ("workspace_mib", "--workspace"),
        ("level", "--level"),
    ):
        if getattr(options, name) != getattr(habit, name):
            raise BuildError(f"{option} means nothing to TensorRT for RTX; leave it out")
    config.num_compute_capabilities = len(options.compute_capabilities)
    for at, name in enumerate(options.compute_capabilities):
        capability = getattr(trt.ComputeCapability, f"SM{name.replace('.', '')}", None)
        if capability is None:
            raise BuildError(f"TensorRT for RTX {trt.__version__} does not build for compute capability {name}")
        config.set_compute_capability(capability, at)


def _lacks_cuda_libraries(trt: ModuleType) -> bool:
    """Whether this is a TensorRT that tries cuBLAS by default, on a machine that has none of its version."""
    if not hasattr(trt.TacticSource, "CUBLAS"):
        return False
    import ctypes

    try:
        return not hasattr(ctypes.CDLL("libcublas.so.11"), "cublasGetProperty")
    except OSError:
        return True


# --- what came out ---------------------------------------------------------------------------------------------------


def _reason(error: Any) -> str:
    """What the parser says, with the node that it means where this TensorRT tells."""
    where = f"{error.node_operator()} {error.node_name()}: " if hasattr(error, "node_operator") else ""
    return f"{where}{error.desc()}"


def _layers(network: Any) -> Iterator[Any]:
    return (network.get_layer(at) for at in range(network.num_layers))


def _binding(tensor: Any) -> Binding:
    return Binding(tensor.name, _dtype(tensor), tuple(tensor.shape))


def machine(options: Options) -> dict[str, Any]:
    """The GPU that was built on; for TensorRT for RTX, the GPUs that were built for."""
    if options.builder == "tensorrt-rtx":
        return {"compute_capabilities": options.compute_capabilities, "gpu": None, "driver": None, "cuda": None}
    query = ["nvidia-smi", "--query-gpu=compute_cap,name,driver_version", "--format=csv,noheader"]
    try:
        line = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()[0]
        capability, gpu, driver = (part.strip() for part in line.split(","))
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return {"compute_capabilities": (), "gpu": None, "driver": None, "cuda": None}  # a Jetson has no nvidia-smi
    return {"compute_capabilities": (capability,), "gpu": gpu, "driver": driver, "cuda": None}


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
    quantized = {layer.get_output(0).name for layer in _layers(network) if layer.type == kinds.DEQUANTIZE}
    rows = []
    for layer in _layers(network):
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


def _logger(trt: ModuleType) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc,name-defined]
        """Keeps the errors, which the API itself does not give back."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

        def last_words(self) -> str:
            return "; ".join(self.errors[-2:])

    return Logger()


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
