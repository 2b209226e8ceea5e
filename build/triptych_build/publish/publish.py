"""Put an adapted detector into the model repository as a new version, with its configuration and its manifest.

    python build/publish.py ADAPTED.onnx --target openvino
    python build/publish.py model.plan --target tensorrt

A version directory is written aside and renamed, so that a server never sees half of one; older versions stay, and
`triptych models` and `triptych activate` list them and go back to them. What the configuration says of shapes and
batches comes from the plan's own bindings and profiles, or from the ONNX.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from triptych import __version__
from triptych.cli.console import run
from triptych.contract import CANDIDATES, DETECTOR, MAX_BATCH, MODELS, PIXELS
from triptych.errors import BuildError
from triptych.files import atomic_write
from triptych.machine import available_cores
from triptych.serving.repository import DEFAULT_REPOSITORY, activate, prune, versions
from triptych_build.adapt import adapter as adapt
from triptych_build.adapt.adapter import Adapted
from triptych_build.quantize import quantize
from triptych_build.tensorrt.network import Builder
from triptych_build.tensorrt.plan import Engine, read_record

KEEP = 5

GRAPH_BATCHES = (1, 2, 4, 8, 16)
"""Batch sizes that the container's TensorRT backend captures as CUDA graphs."""


@dataclass(frozen=True)
class Target:
    """Where a detector runs.

    Attributes:
        builder: who builds its plan, a key of `network.BUILDERS`; None where the ONNX itself is served.
        template: the `model.py` that the Python backend gets, in `targets/`; None for a backend of Triton's own.
        package: the installed package whose version the manifest keeps, for targets without a builder.
        served_as: the target by which the embedded server runs the same file, where it lacks the backend itself.
    """

    builder: Builder | None
    template: str | None
    package: str | None = None
    served_as: str | None = None

    @property
    def filename(self) -> str:
        """What the model's file is called in a version directory."""
        return "model.plan" if self.builder else "model.onnx"


TARGETS = {
    "openvino": Target(None, "onnx.py", "openvino"),
    "onnxruntime": Target(None, None, "onnxruntime", served_as="onnxruntime-python"),
    "onnxruntime-python": Target(None, "onnx.py", "onnxruntime"),
    "tensorrt": Target("tensorrt", None, served_as="tensorrt-python"),
    "tensorrt-python": Target("tensorrt", "tensorrt.py"),
    "tensorrt-rtx": Target("tensorrt-rtx", "tensorrt.py"),
}


@dataclass(frozen=True)
class InstanceGroup:
    """How a detector is spread over the machine.

    Attributes:
        count: instances that each hold the detector; on GPUs, for each of them.
        threads: CPU threads of each. Count times threads should not pass the cores.
        gpus: the GPUs by number; none: every GPU that the server sees, or the CPU.
        queue_delay_us: how long a request may wait for others to share its batch, in microseconds; on a GPU.
    """

    count: int
    threads: int = 1
    gpus: tuple[int, ...] = ()
    queue_delay_us: int = 0

    @classmethod
    def for_cores(cls, cores: int) -> InstanceGroup:
        """One single-threaded instance a core up to 8, then more threads: the most throughput from a CPU."""
        count = min(cores, 8)
        return cls(count=count, threads=cores // count)


@dataclass(frozen=True)
class Artifact:
    """A file that can be published, and what is known of it.

    Attributes:
        path: an adapted ONNX or a plan.
        adapted: what it was made of.
        precision: "fp32", "fp16", "bf16" or "int8".
        engine: the plan's record; None for an ONNX.
        batch: the batch that an ONNX is fixed at; None where it is dynamic, and for a plan.
    """

    path: Path
    adapted: Adapted
    precision: str
    engine: Engine | None = None
    batch: int | None = None


def read_artifact(path: Path) -> Artifact:
    """What a file is that is to be published.

    Raises:
        BuildError: it is neither an adapted ONNX nor a plan with its record.
    """
    if path.suffix == ".plan":
        record = read_record(path)
        return Artifact(path, record.adapted, record.engine.precision, record.engine)
    model, adapted = adapt.read_adapted_file(path)
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or None
    return Artifact(path, adapted, quantize.precision_of(model), batch=batch)


def publish(
    model: Path,
    target: str,
    repository: Path,
    group: InstanceGroup,
    *,
    calibration: dict[str, Any] | None = None,
    verification: dict[str, Any] | None = None,
) -> Path:
    """Publish an adapted ONNX or a plan as a version, which `triptych.serving.repository.serve` puts into service.

    Args:
        model: the file; a plan's record lies beside it.
        target: one of `TARGETS`.
        repository: the model repository.
        group: how the detector is spread over the machine.
        calibration: what int8 ranges came from, for the manifest.
        verification: the gate's report, for the manifest.

    Returns:
        The version's directory; an older one, if it holds this very model for this target.

    Raises:
        BuildError: the model does not suit the target, the repository is none, or the disk refuses.
    """
    if target not in TARGETS:
        raise BuildError(f"there is no target {target!r}; choose one of {', '.join(TARGETS)}")
    artifact = read_artifact(model)
    _check_fit(artifact, target)
    if not repository.is_dir():
        raise BuildError(f"there is no model repository {repository}; name it with --repository")
    record = manifest(artifact, target, calibration, verification)
    try:
        directory = _published(repository, record)
        if directory:
            with atomic_write(directory / "config.pbtxt") as aside:
                aside.write_text(config_text(artifact, target, group, int(directory.name)))
            with atomic_write(directory / "manifest.json") as aside:
                aside.write_text(json.dumps(record, indent=2) + "\n")
        else:
            directory = _write_version(repository, artifact, target, group, record)
    except OSError as error:
        raise BuildError(f"cannot write to {repository}: {error.strerror or error}; nothing was published") from error
    return directory


def _check_fit(artifact: Artifact, target: str) -> None:
    """Refuse what a target could never serve."""
    chosen, built = TARGETS[target], artifact.engine
    if (built.builder if built else None) != chosen.builder:
        came = f"a plan of {built.builder}" if built else "an ONNX"
        wanted = f"a plan of {chosen.builder}; build one with build/engine.py" if chosen.builder else "an adapted ONNX"
        raise BuildError(f"{artifact.path} is {came}, but the target {target} serves {wanted}")
    if target.startswith("onnxruntime") and artifact.precision == "bf16":
        raise BuildError("ONNX Runtime has no convolutions in bf16; publish fp16 or fp32 for it")
    if chosen.template is None and (artifact.batch or (built and built.is_fixed)):
        raise BuildError(
            f"{artifact.path} takes one batch size alone, and Triton's own backends need a dynamic batch; "
            "build it from a source with a dynamic batch, or publish it for a Python target"
        )
    if chosen.template is None and built and not all(map(built.takes, range(1, MAX_BATCH + 1))):
        raise BuildError(
            f"the ensemble sends batches of 1 to {MAX_BATCH}, but the plan takes "
            f"{' and '.join(map(str, built.profiles))}; "
            f"build it with --profile 1,8,{MAX_BATCH}, or publish it for tensorrt-python, which cuts batches up"
        )


def _published(repository: Path, record: dict[str, Any]) -> Path | None:
    """The newest version that is this very model for this target: publishing twice makes one version."""
    same = ("target", "model_sha256")
    found = [each for each in versions(repository) if all(each.manifest.get(key) == record[key] for key in same)]
    return found[-1].directory if found else None


def _write_version(
    repository: Path, artifact: Artifact, target: str, group: InstanceGroup, record: dict[str, Any]
) -> Path:
    """The model, its model.py, its configuration and its manifest, in the first free version number."""
    detector = repository / DETECTOR.name
    detector.mkdir(exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=detector, prefix=".publishing-"))
    chosen = TARGETS[target]
    try:
        shutil.copyfile(artifact.path, aside / chosen.filename)
        if chosen.template:
            shutil.copyfile(Path(__file__).parent / "targets" / chosen.template, aside / "model.py")
        (aside / "manifest.json").write_text(json.dumps(record, indent=2) + "\n")
        number = max((version.number for version in versions(repository)), default=0) + 1
        (aside / "config.pbtxt").write_text(config_text(artifact, target, group, number))
        aside.chmod(0o755)
        return aside.rename(detector / str(number))
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def copy_of_the_others(repository: Path, copy: Path) -> Path:
    """A repository with the models around the detector alone, for a detector to be tried out in."""
    for model in MODELS:
        if model is not DETECTOR:
            shutil.copytree(repository / model.name, copy / model.name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def manifest(
    artifact: Artifact,
    target: str,
    calibration: dict[str, Any] | None = None,
    verification: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Where a version comes from, what made it, and what was found when it was verified."""
    built, package = artifact.engine, TARGETS[target].package
    runtime = {built.builder: built.version} if built else {package: version(package)} if package else {}
    return {
        "target": target,
        "precision": artifact.precision,
        "published": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model_sha256": adapt.sha256(artifact.path),
        "adapted": asdict(artifact.adapted),
        "versions": {"triptych": __version__, "onnx": version("onnx"), **runtime},
        "engine": built.to_dict() if built else None,
        "calibration": calibration,
        "verification": verification,
    }


# --- config.pbtxt ----------------------------------------------------------------------------------------------------


def config_text(artifact: Artifact, target: str, group: InstanceGroup, number: int) -> str:
    """The `config.pbtxt` of a version of the detector; it serves that version alone."""
    spec, chosen, built = artifact.adapted.spec, TARGETS[target], artifact.engine
    config = model_config_pb2.ModelConfig(max_batch_size=MAX_BATCH)
    if chosen.template:
        config.backend = "python"
    elif built:
        config.platform, config.max_batch_size = "tensorrt_plan", built.largest_batch
    else:
        config.backend = target
    config.version_policy.specific.versions.append(number)
    pixels, candidates = _shapes(artifact)
    config.input.add(name=PIXELS.name, data_type="TYPE_UINT8", dims=pixels)
    config.output.add(name=CANDIDATES.name, data_type="TYPE_FP32", dims=candidates)
    _add_instances(config, group, on_gpu=bool(built) or bool(group.gpus), built=None if chosen.template else built)
    for key, value in spec.to_parameters().items():
        config.parameters[key].string_value = value
    if not built:
        threads = "threads" if chosen.template else "intra_op_thread_count"
        config.parameters[threads].string_value = str(group.threads)
        if chosen.template:
            config.parameters["runtime"].string_value = str(chosen.package)
    if built:
        # On a CPU a batch gains nothing, and gathering one costs every request a change of threads.
        config.dynamic_batching.max_queue_delay_microseconds = group.queue_delay_us
        if not chosen.template:
            _add_cuda_graphs(config, built, pixels)
    _add_warm_up(config, pixels, (1, config.max_batch_size) if built else (1,))
    text: str = text_format.MessageToString(config, use_short_repeated_primitives=True)
    return f"# Generated by `python build`; `triptych activate VERSION` puts another version's in its place.\n{text}"


def _shapes(artifact: Artifact) -> tuple[Sequence[int], Sequence[int]]:
    """The shapes of pixels and candidates without the batch: the plan's bindings, or the ONNX's record."""
    if artifact.engine:
        return artifact.engine.inputs[0].shape[1:], artifact.engine.outputs[0].shape[1:]
    spec = artifact.adapted.spec
    return (spec.height, spec.width, 3), (artifact.adapted.candidates, 6)


def _add_instances(
    config: model_config_pb2.ModelConfig, group: InstanceGroup, *, on_gpu: bool, built: Engine | None
) -> None:
    instances = config.instance_group.add(count=group.count, kind="KIND_GPU" if on_gpu else "KIND_CPU")
    instances.gpus.extend(group.gpus)
    if built and len(built.profiles) > 1:
        instances.profile.extend(str(at) for at in range(len(built.profiles)))


def _add_cuda_graphs(config: model_config_pb2.ModelConfig, built: Engine, pixels: Sequence[int]) -> None:
    """Replay whole batches as CUDA graphs: a small detector is bound by launching its kernels one by one."""
    cuda = config.optimization.cuda
    cuda.graphs = True
    for size in GRAPH_BATCHES:
        if size <= built.largest_batch:
            cuda.graph_spec.add(batch_size=size).input[PIXELS.name].dim.extend(pixels)


def _add_warm_up(config: model_config_pb2.ModelConfig, pixels: Sequence[int], sizes: Sequence[int]) -> None:
    """Run once before the first request comes: kernels, graphs and memory are set up then."""
    for size in sizes:
        warm_up = config.model_warmup.add(name=f"batch {size}", batch_size=size)
        warm_up.inputs[PIXELS.name].data_type = model_config_pb2.TYPE_UINT8
        warm_up.inputs[PIXELS.name].dims.extend(pixels)
        warm_up.inputs[PIXELS.name].zero_data = True


# --- the step --------------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this step."""
    habit = InstanceGroup.for_cores(available_cores())
    options = parser.add_argument_group("publish")
    options.add_argument("--target", choices=TARGETS, default="openvino", help="what runs the detector (openvino)")
    options.add_argument(
        "--repository", type=Path, default=DEFAULT_REPOSITORY, help="the model repository (model_repository)"
    )
    options.add_argument(
        "--instances", type=int, help=f"instances of the detector (on a CPU {habit.count} here; on GPUs 1 each)"
    )
    options.add_argument("--threads", type=int, default=habit.threads, help=f"threads of each ({habit.threads} here)")
    options.add_argument("--gpus", type=int, nargs="+", default=[], metavar="N", help="the GPUs to use (all)")
    options.add_argument(
        "--queue-delay-us",
        type=int,
        default=0,
        metavar="US",
        help="how long a batch may wait to fill (0)",
    )
    options.add_argument("--keep", type=int, default=KEEP, metavar="N", help=f"versions that stay ({KEEP})")
    options.add_argument("--address", metavar="HOST:PORT", help="a running server that is to switch over now")


def group_from(arguments: argparse.Namespace) -> InstanceGroup:
    """The instances that the options ask for."""
    habit = 1 if TARGETS[arguments.target].builder else InstanceGroup.for_cores(available_cores()).count
    count = habit if arguments.instances is None else arguments.instances
    if min(count, arguments.threads) < 1:
        raise BuildError(f"instances and threads must be at least 1, but got {count} and {arguments.threads}")
    if arguments.keep < 1:
        raise BuildError(f"at least 1 version must be kept, but got --keep {arguments.keep}")
    if min([arguments.queue_delay_us, *arguments.gpus]) < 0:
        raise BuildError("a queue delay and the numbers of GPUs must be 0 or more")
    return InstanceGroup(count, arguments.threads, tuple(arguments.gpus), arguments.queue_delay_us)


def serve_from(arguments: argparse.Namespace, directory: Path) -> None:
    """Put a version into service as the options say, and remove versions beyond those to keep."""
    activate(arguments.repository, int(directory.name), arguments.address)
    where = f"{arguments.address} serves" if arguments.address else "the next start serves"
    print(f"publish: {where} version {directory.name}")
    removed = prune(arguments.repository, arguments.keep)
    if removed:
        print(f"publish: removed the old version{'s' if len(removed) > 1 else ''} {', '.join(map(str, removed))}")


def main() -> None:
    """Run this step alone."""
    parser = argparse.ArgumentParser(prog="python build/publish.py", description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", type=Path, help="an adapted ONNX, or a plan with its record beside it")
    add_arguments(parser)
    arguments = parser.parse_args()
    directory = publish(arguments.model, arguments.target, arguments.repository, group_from(arguments))
    print(f"publish: {directory} for {arguments.target}")
    serve_from(arguments, directory)


if __name__ == "__main__":
    run(main)
