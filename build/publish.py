"""Put an adapted detector into the model repository as a new version, with its configuration and its manifest.

    python build/publish.py ADAPTED.onnx --target openvino

A version directory is written aside and renamed, so that a server never sees half of one; older versions stay, and
`triptych models` and `triptych activate` list them and go back to them.
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
from triptych.console import run
from triptych.contract import CANDIDATES, DETECTOR, MAX_BATCH, PIXELS
from triptych.errors import BuildError
from triptych.files import write_aside
from triptych.machine import available_cores
from triptych.repository import DEFAULT_REPOSITORY, activate, load, prune, versions

TARGETS = ("openvino",)
KEEP = 5


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
    """Publish an adapted ONNX and have it served from the next load on; the new version's directory.

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
    try:
        version = _published(repository, model, target)
        if version:
            with write_aside(version / "config.pbtxt") as aside:
                aside.write_text(config_text(record, group, int(version.name)))
        else:
            version = _write_version(repository, model, target, record, group)
    except OSError as error:
        raise BuildError(f"cannot write to {repository}: {error.strerror or error}; nothing was published") from error
    activate(repository, int(version.name))
    print(f"publish: {version} for {target}, {group.count} instances x {group.threads} threads")
    return version


def _published(repository: Path, model: Path, target: str) -> Path | None:
    """The newest version, if it is this very model for this target: publishing twice makes one version."""
    for newest in versions(repository)[-1:]:
        if (newest.manifest.get("target"), newest.manifest.get("model_sha256")) == (target, adapt.sha256(model)):
            return newest.directory
    return None


def _write_version(repository: Path, model: Path, target: str, record: Adapted, group: InstanceGroup) -> Path:
    """The engine, its model.py, its configuration and its manifest, in the first free version number."""
    detector = repository / DETECTOR.name
    detector.mkdir(exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=detector, prefix=".publishing-"))
    try:
        shutil.copyfile(model, aside / "model.onnx")
        shutil.copyfile(Path(__file__).parent / "targets" / f"{target}.py", aside / "model.py")
        (aside / "manifest.json").write_text(json.dumps(manifest(model, target, record), indent=2) + "\n")
        number = max((version.number for version in versions(repository)), default=0) + 1
        (aside / "config.pbtxt").write_text(config_text(record, group, number))
        aside.chmod(0o755)
        return aside.rename(detector / str(number))
    finally:
        shutil.rmtree(aside, ignore_errors=True)


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


def config_text(record: Adapted, group: InstanceGroup, number: int) -> str:
    """The `config.pbtxt` of a version of the detector; it serves that version alone."""
    spec = record.spec
    config = model_config_pb2.ModelConfig(backend="python", max_batch_size=MAX_BATCH)
    config.version_policy.specific.versions.append(number)
    config.input.add(name=PIXELS.name, data_type="TYPE_UINT8", dims=[spec.height, spec.width, 3])
    config.output.add(name=CANDIDATES.name, data_type="TYPE_FP32", dims=[record.candidates, 6])
    config.instance_group.add(count=group.count, kind="KIND_CPU")
    for key, value in {**spec.to_parameters(), "threads": str(group.threads)}.items():
        config.parameters[key].string_value = value
    text: str = text_format.MessageToString(config, use_short_repeated_primitives=True)
    return f"# Generated by `python build`; `triptych activate VERSION` puts another version's in its place.\n{text}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this step."""
    habit = InstanceGroup.for_cores(available_cores())
    options = parser.add_argument_group("publish")
    options.add_argument("--target", choices=TARGETS, default=TARGETS[0], help="what runs the detector")
    options.add_argument(
        "--repository", type=Path, default=DEFAULT_REPOSITORY, help="the model repository (model_repository)"
    )
    options.add_argument(
        "--instances", type=int, default=habit.count, help=f"processes of the detector ({habit.count} here)"
    )
    options.add_argument("--threads", type=int, default=habit.threads, help=f"threads of each ({habit.threads} here)")
    options.add_argument("--keep", type=int, default=KEEP, metavar="N", help=f"versions that stay ({KEEP})")
    options.add_argument("--address", metavar="HOST:PORT", help="a running server that is to switch over now")


def publish_from(arguments: argparse.Namespace, model: Path) -> Path:
    """Publish as the options of this step say."""
    group = InstanceGroup(arguments.instances, arguments.threads)
    if min(group.count, group.threads) < 1:
        raise BuildError(f"instances and threads must be at least 1, but got {group.count} and {group.threads}")
    if arguments.keep < 1:
        raise BuildError(f"at least 1 version must be kept, but got --keep {arguments.keep}")
    version = publish(model, arguments.target, arguments.repository, group)
    if arguments.address:
        load(arguments.repository, arguments.address)
        print(f"publish: {arguments.address} serves version {version.name}")
    removed = prune(arguments.repository, arguments.keep)
    if removed:
        print(f"publish: removed the old version{'s' if len(removed) > 1 else ''} {', '.join(map(str, removed))}")
    return version


def main() -> None:
    """Run this step alone."""
    parser = argparse.ArgumentParser(prog="python build/publish.py", description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", type=Path, help="an adapted ONNX")
    add_arguments(parser)
    arguments = parser.parse_args()
    publish_from(arguments, arguments.model)


if __name__ == "__main__":
    run(main)
