"""What is profiled: a file, or a published version of the detector, and how it is run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from triptych.errors import BuildError
from triptych.machine import available_cores
from triptych.measure.own_loop import ServedFile
from triptych.measure.run_file import ServedDetector
from triptych.model_config import read_config
from triptych.runtimes import RUNTIMES
from triptych.runtimes._tensorrt import engine_of
from triptych.serving.repository import check_files, versions
from triptych_build.adapt.onnx_file import read_adapted_file
from triptych_build.profile.operators import Operators
from triptych_build.publish.target import InstanceGroup
from triptych_build.quantize.precision import precision_of

ON_GPU = "tensorrt"
"""The runtime that takes plans, and nothing else."""


@dataclass(frozen=True)
class Subject:
    """What is profiled.

    Attributes:
        name: what to call it.
        path: the file.
        runtime: a key of `RUNTIMES`.
        threads: CPU threads; None on a GPU.
        precision: what the file was made for; "unknown" for a plan without a record.
        operators: of its ONNX; None for a plan.
        detector: the version as it is served; None for a file.
    """

    name: str
    path: Path
    runtime: str
    threads: int | None
    precision: str
    operators: Operators | None
    detector: ServedDetector | None = None


def find(word: str, repository: Path, runtime: str | None = None, threads: int | None = None) -> Subject:
    """Find what is to be profiled.

    Args:
        word: an adapted ONNX, a plan, or the number of a version.
        repository: the model repository that has the version.
        runtime: a key of `RUNTIMES`; None: the version's, or the usual one for the file.
        threads: CPU threads; None: as the version was published, or as a file would be.

    Raises:
        BuildError: it is neither, its file is not whole, or the runtime does not take it.
    """
    if word.isdecimal() and not Path(word).exists():
        return _version(int(word), repository, runtime, threads)
    path = Path(word)
    return _subject(path.name, path, runtime, threads or InstanceGroup.for_cores(available_cores()).threads)


def _version(number: int, repository: Path, runtime: str | None, threads: int | None) -> Subject:
    published = {version.number: version for version in versions(repository)}
    if number not in published:
        known = ", ".join(map(str, published)) or "none"
        raise BuildError(f"there is no version {number} of the detector in {repository}; there is {known}")
    version = published[number]
    check_files(version.directory)
    config = read_config(version.directory)
    served = ServedFile.of(config, repository)
    detector = ServedDetector(
        version=number,
        backend=config.backend or config.platform,
        instances=sum(group.count for group in config.instance_group),
        max_batch=config.max_batch_size,
        manifest=version.manifest or None,
    )
    name = f"version {number}"
    return _subject(name, served.path, runtime or served.runtime, threads or served.threads, detector)


def _subject(
    name: str, path: Path, runtime: str | None, threads: int | None, detector: ServedDetector | None = None
) -> Subject:
    is_plan = ".plan" in path.suffixes  # of several GPUs: model.plan.8.9
    runtime = runtime or (ON_GPU if is_plan else "openvino")
    if is_plan != (runtime == ON_GPU):
        takes = [one for one in RUNTIMES if (one == ON_GPU) == is_plan]
        raise BuildError(
            f"{path} is {'a plan' if is_plan else 'an ONNX'}, which {runtime} does not run; choose --runtime "
            f"{' or '.join(takes)}"
        )
    if not path.is_file():
        raise BuildError(f"there is no file {path}")
    if is_plan:
        precision = str(engine_of(path).get("precision", "unknown"))
        return Subject(name, path, runtime, None, precision, None, detector)
    model, _ = read_adapted_file(path)
    return Subject(name, path, runtime, threads, precision_of(model), Operators(model), detector)
