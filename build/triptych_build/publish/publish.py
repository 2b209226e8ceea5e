"""Put an adapted detector into the model repository as a new version, with its configuration and its manifest.

A version directory is written aside and renamed, so that a server never sees half of one. Older versions stay;
`triptych models` lists them and `triptych activate` goes back to one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from triptych import __version__
from triptych.contract import DETECTOR, MODELS
from triptych.errors import BuildError
from triptych.files import aside, atomic_write, flush, sha256
from triptych.serving.repository import activate, prune, versions
from triptych_build.publish.artifact import Artifact, check_fit, read_artifact
from triptych_build.publish.config_pbtxt import config_text
from triptych_build.publish.target import TARGETS, InstanceGroup, TargetName


def publish(
    model: Path,
    target: TargetName,
    repository: Path,
    group: InstanceGroup,
    *,
    calibration: dict[str, Any] | None = None,
    verification: dict[str, Any] | None = None,
) -> Path:
    """Publish an adapted ONNX or a plan as a version; `triptych.serving.repository.activate` serves it.

    Args:
        model: the file; a plan needs its record next to it.
        target: one of `TARGETS`.
        repository: the model repository.
        group: how the detector is spread over the machine.
        calibration: what int8 ranges came from, for the manifest.
        verification: the gate's report, for the manifest.

    Returns:
        The version's directory; an older one, if it holds this very model for this target. Files of it that are cut or
        missing are written again.

    Raises:
        BuildError: the model does not suit the target, there is no repository, or the disk refuses.
    """
    artifact = read_artifact(model)
    check_fit(artifact, target)
    if not repository.is_dir():
        raise BuildError(f"there is no model repository {repository}; name it with --model-repository")
    record = manifest(artifact, target, calibration, verification)
    try:
        directory = _published(repository, record)
        if directory:
            _renew_version(directory, artifact, target, group, record)
        else:
            directory = _write_version(repository, artifact, target, group, record)
    except OSError as error:
        raise BuildError(f"cannot write to {repository}: {error.strerror or error}; nothing was published") from error
    return directory


def _published(repository: Path, record: dict[str, Any]) -> Path | None:
    """Return the newest version of this very model for this target: publishing twice makes one version."""
    same = ("target", "model_sha256")
    published = [
        version.directory
        for version in versions(repository)
        if all(version.manifest.get(key) == record[key] for key in same)
    ]
    return published[-1] if published else None


def _files(artifact: Artifact, target: TargetName) -> dict[str, Path]:
    """Return what a version is copied from, by the names there."""
    chosen = TARGETS[target]
    files = {chosen.filename: artifact.path}
    if chosen.template:
        files["model.py"] = Path(__file__).parent / "targets" / chosen.template
    return files


def _texts(
    artifact: Artifact, target: TargetName, group: InstanceGroup, number: int, record: dict[str, Any]
) -> dict[str, str]:
    """Return what is written into a version, by the names there."""
    return {
        "config.pbtxt": config_text(artifact, target, group, number),
        "manifest.json": json.dumps(record, indent=2) + "\n",
    }


def _renew_version(
    directory: Path, artifact: Artifact, target: TargetName, group: InstanceGroup, record: dict[str, Any]
) -> None:
    """Write a version's texts once more, and each file that is not whole; a server may serve it meanwhile."""
    for name, source in _files(artifact, target).items():
        path = directory / name
        if not path.is_file() or sha256(path) != sha256(source):
            with atomic_write(path) as temporary:
                shutil.copyfile(source, temporary)
    for name, text in _texts(artifact, target, group, int(directory.name), record).items():
        with atomic_write(directory / name) as temporary:
            temporary.write_text(text)


def _write_version(
    repository: Path, artifact: Artifact, target: TargetName, group: InstanceGroup, record: dict[str, Any]
) -> Path:
    """Write the model, its model.py, its configuration and its manifest as the first free version number."""
    detector = repository / DETECTOR.name
    detector.mkdir(exist_ok=True)
    temporary = aside(detector / "publishing")
    temporary.mkdir()
    try:
        number = max((version.number for version in versions(repository)), default=0) + 1
        for name, source in _files(artifact, target).items():
            shutil.copyfile(source, temporary / name)
        for name, text in _texts(artifact, target, group, number, record).items():
            (temporary / name).write_text(text)
        for path in (*temporary.iterdir(), temporary):
            flush(path)
        directory = temporary.rename(detector / str(number))
        flush(detector)
        return directory
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def copy_without_detector(repository: Path, copy: Path) -> Path:
    """Copy a repository's other models, for a detector to be tried out among them; return the copy."""
    for model in MODELS:
        if model is not DETECTOR:
            shutil.copytree(repository / model.name, copy / model.name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def manifest(
    artifact: Artifact,
    target: TargetName,
    calibration: dict[str, Any] | None = None,
    verification: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return where a version comes from, what made it, and what the gate measured."""
    engine, package = artifact.engine, TARGETS[target].package
    runtime = {engine.builder: engine.version} if engine else {package: version(package)} if package else {}
    return {
        "target": target,
        "precision": artifact.precision,
        "published": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model_sha256": sha256(artifact.path),
        "adapted": asdict(artifact.adapted),
        "versions": {"triptych": __version__, "onnx": version("onnx"), **runtime},
        "engine": engine.to_dict() if engine else None,
        "calibration": calibration,
        "verification": verification,
    }


def put_into_service(
    directory: Path, repository: Path, *, keep: int, address: str | None, say: Callable[[str], None]
) -> None:
    """Have a repository, and a running server if one is named, serve a version; remove the oldest versions.

    Args:
        directory: the version's.
        repository: the model repository.
        keep: how many versions stay.
        address: a running server that switches over now; None: the next start serves the version.
        say: gets a sentence for each thing done.

    Raises:
        BuildError: the server does not take the version.
    """
    activate(repository, int(directory.name), address)
    say(f"publish: {f'{address} serves' if address else 'the next start serves'} version {directory.name}")
    removed = prune(repository, keep)
    if removed:
        say(f"publish: removed the old version{'s' if len(removed) > 1 else ''} {', '.join(map(str, removed))}")
