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
from triptych.files import aside, atomic_write, flush, locked, sha256
from triptych.serving.repository import Version, activate, prune, versions
from triptych.wire.credentials import LOCAL, Credentials
from triptych_build.publish.artifact import Artifact, check_fit, read_artifact
from triptych_build.publish.config_pbtxt import config_text
from triptych_build.publish.layers import Layers, read_layers
from triptych_build.publish.plans import OWN, filename, filenames, merged, place_of
from triptych_build.publish.target import TARGETS, InstanceGroup, TargetName


def publish(
    model: Path,
    target: TargetName,
    repository: Path,
    group: InstanceGroup,
    *,
    calibration: dict[str, Any] | None = None,
    verification: dict[str, Any] | None = None,
    layers: Layers | None = None,
) -> Path:
    """Publish an adapted ONNX or a plan as a version; `triptych.serving.repository.activate` serves it.

    Args:
        model: the file; a plan needs its record next to it.
        target: one of `TARGETS`.
        repository: the model repository.
        group: how the detector is spread over the machine.
        calibration: what int8 ranges came from, for the manifest.
        verification: the gate's report, for the manifest.
        layers: the precision of each layer, for the manifest; None asks whoever runs it.

    Returns:
        The version's directory; an older one, if it holds this very model for this target, or the same model for other
        GPUs. Files of it that are cut or missing are written again, and what the gate said of this very file stays.

    Raises:
        BuildError: the model does not suit the target, there is no repository, or the disk refuses.
    """
    artifact = read_artifact(model)
    check_fit(artifact, target)
    if not repository.is_dir():
        raise BuildError(f"there is no model repository {repository}; name it with --model-repository")
    # As it will be read again, to be compared with what is there.
    layers = layers or read_layers(artifact, target)
    record = json.loads(json.dumps(manifest(artifact, target, layers, calibration, verification)))
    try:
        (repository / DETECTOR.name).mkdir(exist_ok=True)
        with locked(repository / DETECTOR.name / ".publishing.lock"):
            home = _home(repository, record)
            if home:
                _renew_version(home, artifact, group, record)
                return home.directory
            return _write_version(repository, artifact, group, record)
    except OSError as error:
        raise BuildError(f"cannot write to {repository}: {error.strerror or error}; nothing was published") from error


def _home(repository: Path, record: dict[str, Any]) -> Version | None:
    """Return the newest version that holds this very model for this target, or that the plan belongs to."""
    homes = [version for version in versions(repository) if place_of(record, version.manifest) is not None]
    return homes[-1] if homes else None


def _files(artifact: Artifact, target: TargetName, place: str = OWN) -> dict[str, Path]:
    """Return what a version is copied from, by the names there."""
    chosen = TARGETS[target]
    files = {filename(chosen.filename, place): artifact.path}
    if chosen.template:
        files["model.py"] = Path(__file__).parent / "targets" / chosen.template
    return files


def _texts(artifact: Artifact, group: InstanceGroup, number: int, record: dict[str, Any]) -> dict[str, str]:
    """Return what is written into a version, by the names there."""
    target: TargetName = record["target"]
    return {
        "config.pbtxt": config_text(artifact, target, group, number, filenames(record, TARGETS[target].filename)),
        "manifest.json": json.dumps(record, indent=2) + "\n",
    }


def _renew_version(home: Version, artifact: Artifact, group: InstanceGroup, record: dict[str, Any]) -> None:
    """Write a version's texts once more, and each file that is not whole; a server may serve it meanwhile."""
    place = place_of(record, home.manifest) or OWN
    for name, source in _files(artifact, record["target"], place).items():
        path = home.directory / name
        if not path.is_file() or sha256(path) != sha256(source):
            with atomic_write(path) as temporary:
                shutil.copyfile(source, temporary)
    for name, text in _texts(artifact, group, home.number, merged(record, home.manifest, place)).items():
        with atomic_write(home.directory / name) as temporary:
            temporary.write_text(text)


def _write_version(repository: Path, artifact: Artifact, group: InstanceGroup, record: dict[str, Any]) -> Path:
    """Write the model, its model.py, its configuration and its manifest as the first free version number."""
    detector, target = repository / DETECTOR.name, record["target"]
    temporary = aside(detector / "publishing")
    temporary.mkdir()
    try:
        number = max((version.number for version in versions(repository)), default=0) + 1
        for name, source in _files(artifact, target).items():
            shutil.copyfile(source, temporary / name)
        for name, text in _texts(artifact, group, number, record).items():
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
    layers: Layers,
    calibration: dict[str, Any] | None = None,
    verification: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return where a version comes from, what made it, and what the gate measured."""
    engine, package = artifact.engine, TARGETS[target].package
    runtime = {engine.builder: engine.version} if engine else {package: version(package)} if package else {}
    return {
        "target": target,
        "precision": artifact.precision,
        "int8": artifact.int8,
        "layers": layers.to_dict(),
        "published": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model_sha256": sha256(artifact.path),
        "adapted": asdict(artifact.adapted),
        "versions": {"triptych": __version__, "onnx": version("onnx"), **runtime},
        "engine": engine.to_dict() if engine else None,
        "calibration": calibration,
        "verification": verification,
    }


def put_into_service(
    directory: Path,
    repository: Path,
    *,
    keep: int,
    address: str | None,
    credentials: Credentials = LOCAL,
    say: Callable[[str], None],
) -> None:
    """Have a repository, and a running server if one is named, serve a version; remove the oldest versions.

    Args:
        directory: the version's.
        repository: the model repository.
        keep: how many versions stay.
        address: a running server that switches over now; None: the next start serves the version.
        credentials: how to connect to it.
        say: gets a sentence for each thing done.

    Raises:
        BuildError: the server does not take the version.
    """
    activate(repository, int(directory.name), address, credentials)
    say(f"publish: {f'{address} serves' if address else 'the next start serves'} version {directory.name}")
    removed = prune(repository, keep)
    if removed:
        say(f"publish: removed the old version{'s' if len(removed) > 1 else ''} {', '.join(map(str, removed))}")
