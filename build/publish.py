"""Put an adapted detector into the model repository as a new version, with its configuration and its manifest.

    python build/publish.py ADAPTED.onnx --target openvino

A version directory is written aside and renamed, so that a server never sees half of one; older versions stay.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

import adapt
from adapt import Adapted
from files import write_aside
from triptych.console import run
from triptych.contract import CANDIDATES, DETECTOR, MAX_BATCH, PIXELS
from triptych.errors import BuildError
from triptych.machine import available_cores

TARGETS = ("openvino",)
REPOSITORY = Path("model_repository")


@dataclass(frozen=True)
class InstanceGroup:
    """How a detector is spread over the machine.

    Attributes:
        count: processes that each hold the detector.
        threads: threads of each. Count times threads should not pass the cores.
    """

    count: int
    threads: int

    @classmethod
    def for_cores(cls, cores: int) -> InstanceGroup:
        """One single-threaded instance a core up to 8, then more threads: the most throughput from a CPU."""
        count = min(cores, 8)
        return cls(count=count, threads=cores // count)


def publish(model: Path, target: str, repository: Path, group: InstanceGroup) -> Path:
    """Publish an adapted ONNX; the new version's directory.

    Raises:
        BuildError: the model is not adapted, the repository is none, or the disk refuses.
    """
    record = adapt.read_adapted(adapt.read_onnx(model))
    if record is None:
        raise BuildError(
            f"{model} is not adapted to the contract; run `python build/adapt.py {model} --out ADAPTED.onnx`"
        )
    if target not in TARGETS:
        raise BuildError(f"there is no target {target!r}; choose one of {', '.join(TARGETS)}")
    if not repository.is_dir():
        raise BuildError(f"there is no model repository {repository}; name it with --repository")
    detector = repository / DETECTOR.name
    detector.mkdir(exist_ok=True)
    try:
        directory = _published(detector, model, target) or _write_version(detector, model, target, record)
        with write_aside(detector / "config.pbtxt") as aside:
            aside.write_text(config_text(record, group))
    except OSError as error:
        raise BuildError(f"cannot write to {detector}: {error.strerror or error}; nothing was published") from error
    print(f"publish: {directory} for {target}, {group.count} instances x {group.threads} threads")
    return directory


def _published(detector: Path, model: Path, target: str) -> Path | None:
    """The newest version, if it is this very model for this target: publishing twice makes one version."""
    for number in versions(detector)[-1:]:
        try:
            stated = json.loads((detector / str(number) / "manifest.json").read_text())
        except (OSError, ValueError):
            return None
        if (stated.get("target"), stated.get("model_sha256")) == (target, adapt.sha256(model)):
            return detector / str(number)
    return None


def _write_version(detector: Path, model: Path, target: str, record: Adapted) -> Path:
    """The engine, its model.py and its manifest, in the first free version number."""
    aside = Path(tempfile.mkdtemp(dir=detector, prefix=".publishing-"))
    try:
        shutil.copyfile(model, aside / "model.onnx")
        shutil.copyfile(Path(__file__).parent / "targets" / f"{target}.py", aside / "model.py")
        (aside / "manifest.json").write_text(json.dumps(manifest(model, target, record), indent=2) + "\n")
        aside.chmod(0o755)
        directory = detector / str(max(versions(detector), default=0) + 1)
        aside.rename(directory)
        return directory
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def versions(detector: Path) -> list[int]:
    """The published versions, oldest first."""
    return sorted(int(entry.name) for entry in detector.iterdir() if entry.is_dir() and entry.name.isdigit())


def manifest(model: Path, target: str, record: Adapted) -> dict[str, object]:
    """Where a version comes from and what made it."""
    return {
        "target": target,
        "precision": "fp32",
        "published": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model_sha256": adapt.sha256(model),
        "adapted": asdict(record),
        "versions": {name: version(name) for name in ("triptych", "onnx", target)},
    }


def config_text(record: Adapted, group: InstanceGroup) -> str:
    """The detector's `config.pbtxt`."""
    spec = record.spec
    config = model_config_pb2.ModelConfig(backend="python", max_batch_size=MAX_BATCH)
    config.input.add(name=PIXELS.name, data_type="TYPE_UINT8", dims=[spec.height, spec.width, 3])
    config.output.add(name=CANDIDATES.name, data_type="TYPE_FP32", dims=[record.candidates, 6])
    config.instance_group.add(count=group.count, kind="KIND_CPU")
    for key, value in {**spec.to_parameters(), "threads": str(group.threads)}.items():
        config.parameters[key].string_value = value
    text: str = text_format.MessageToString(config, use_short_repeated_primitives=True)
    return f"# Generated by `python build`; it describes the newest version here.\n{text}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this step."""
    habit = InstanceGroup.for_cores(available_cores())
    options = parser.add_argument_group("publish")
    options.add_argument("--target", choices=TARGETS, default=TARGETS[0], help="what runs the detector")
    options.add_argument("--repository", type=Path, default=REPOSITORY, help="the model repository (model_repository)")
    options.add_argument(
        "--instances", type=int, default=habit.count, help=f"processes of the detector ({habit.count} here)"
    )
    options.add_argument("--threads", type=int, default=habit.threads, help=f"threads of each ({habit.threads} here)")


def publish_from(arguments: argparse.Namespace, model: Path) -> Path:
    """Publish as the options of this step say."""
    group = InstanceGroup(arguments.instances, arguments.threads)
    if min(group.count, group.threads) < 1:
        raise BuildError(f"instances and threads must be at least 1, but got {group.count} and {group.threads}")
    return publish(model, arguments.target, arguments.repository, group)


def main() -> None:
    """Run this step alone."""
    parser = argparse.ArgumentParser(prog="python build/publish.py", description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", type=Path, help="an adapted ONNX")
    add_arguments(parser)
    arguments = parser.parse_args()
    publish_from(arguments, arguments.model)


if __name__ == "__main__":
    run(main)
