"""The published versions of the detector in a model repository: which exist, which is served, and changing that.

Each version directory holds everything of its version, its `config.pbtxt` included. The configuration that Triton
reads is a copy of the served version's, and names only that version. So serving another version is one rename, and a
version that was only half made is never served.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import model_config_pb2

from triptych.contract import DETECTOR
from triptych.errors import AccessDenied, BuildError, ContractError, ServerUnavailable, TriptychError
from triptych.files import atomic_write, sha256, unused
from triptych.model_config import detector_spec, names_itself, read_config
from triptych.serving.decoding import take_gpu_pixels, takes_gpu_pixels
from triptych.serving.instances import fit_alike
from triptych.serving.log import load_failure
from triptych.wire.credentials import LOCAL, Credentials
from triptych.wire.model_control import ModelControl
from triptych.wire.status import Target, explain_rpc_error

DEFAULT_REPOSITORY = Path("model_repository")
"""Where the project keeps its models, from the root of a checkout."""

LOAD_TIMEOUT_S = 60.0
"""How long a running server may take to load a version."""


@dataclass(frozen=True)
class Version:
    """One published version of the detector.

    Attributes:
        number: its number.
        directory: where its files are.
        is_served: whether the configuration names it.
        manifest: where it comes from and how it was made; empty if it has none that can be read.
    """

    number: int
    directory: Path
    is_served: bool
    manifest: dict[str, Any]


def versions(repository: Path) -> list[Version]:
    """Return the published versions, oldest first."""
    detector = repository / DETECTOR.name
    if not detector.is_dir():
        return []
    served = _served_number(detector)
    numbers = sorted(int(entry.name) for entry in detector.iterdir() if entry.is_dir() and entry.name.isdigit())
    return [
        Version(number, detector / str(number), number == served, read_manifest(detector / str(number)))
        for number in numbers
    ]


def _served_number(detector: Path) -> int | None:
    try:
        named = read_config(detector).version_policy.specific.versions
    except ContractError:
        return None
    return int(named[0]) if named else None


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return the manifest of a version, by its directory; empty if it has none that can be read."""
    try:
        manifest: Any = json.loads((directory / "manifest.json").read_text())
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _select(repository: Path, number: int) -> None:
    """Make the repository serve a version, from the next load on.

    Raises:
        BuildError: there is no such version, it has no configuration, or the disk refuses.
    """
    detector = repository / DETECTOR.name
    published = {version.number: version for version in versions(repository)}
    if number not in published:
        known = ", ".join(map(str, published)) or "none"
        raise BuildError(f"there is no version {number} of the detector in {repository}; there is {known}")
    try:
        read_config(published[number].directory)
        with atomic_write(detector / "config.pbtxt") as aside:
            shutil.copyfile(published[number].directory / "config.pbtxt", aside)
    except ContractError as error:
        raise BuildError(f"version {number} cannot be served: {error}") from error
    except OSError as error:
        raise BuildError(
            f"cannot write {detector / 'config.pbtxt'}: {error.strerror or error}; what was served stays"
        ) from error


def activate(repository: Path, number: int, address: str | None = None, credentials: Credentials = LOCAL) -> None:
    """Make the repository serve a version. With an address, have a running server switch over to it now.

    Raises:
        BuildError: there is no such version, a model of it is not the file that was published, or the server cannot
            switch over to it (see `switch_server`). The repository then serves what it served before.
        ServerUnavailable: no server answers at the address. The repository serves what it served before.
    """
    check_files(repository / DETECTOR.name / str(number))
    before = next((version.number for version in versions(repository) if version.is_served), None)
    _select(repository, number)
    if address is None:
        return
    try:
        switch_server(repository, address, credentials=credentials)
    except TriptychError:
        if before is not None:
            _select(repository, before)
        raise


def check_files(version: Path) -> None:
    """Make sure that the models of a version are those that its manifest describes, as far as it does.

    Raises:
        BuildError: one of them was changed or cut since.
    """
    manifest = read_manifest(version)
    plans = {f"model.plan.{capability}": plan for capability, plan in (manifest.get("plans") or {}).items()}
    for name, record in {"model.onnx": manifest, "model.plan": manifest, **plans}.items():
        file, expected = version / name, record.get("model_sha256")
        if expected and file.is_file() and sha256(file) != expected:
            raise BuildError(
                f"version {version.name} cannot be served: its {name} is not the file that was published; publish it "
                "again, or activate another version"
            )


def prune(repository: Path, keep: int) -> list[int]:
    """Remove all versions but the newest `keep`, and return the numbers of those removed.

    The version that the next start serves stays, and so does every version that a server of this machine serves now:
    the server and its models hold its directory.
    """
    removed = []
    published = versions(repository)
    for version in published[: max(0, len(published) - keep)]:
        if version.is_served:
            continue
        with unused(version.directory) as is_unused:
            if is_unused:
                # Renamed first: a server that looks in meanwhile sees the whole version or none.
                shutil.rmtree(version.directory.rename(version.directory.with_name(f".removing-{version.number}")))
                removed.append(version.number)
    return removed


def switch_server(
    repository: Path, address: str, timeout_s: float = LOAD_TIMEOUT_S, credentials: Credentials = LOCAL
) -> int:
    """Have a running server switch over to the version that the repository serves, and return its number.

    No request fails: Triton starts the new version while the old one still answers, and switches when it is ready. Only
    the detector is loaded. Its stages go on as they are, so all that they need to know of it must be the same. The
    names of its classes may differ, since each answer says whose names its labels are.

    Raises:
        BuildError: the server cannot load the version, or its stages must change with it.
        ContractError: the server decodes on a GPU, and the version takes no pixels from there.
        ServerUnavailable: no server answers at the address.
        AccessDenied: the server was started by somebody else.
    """
    wanted = next(version.number for version in versions(repository) if version.is_served)
    control = ModelControl(address, credentials=credentials)
    try:
        now, new = control.config(DETECTOR.name), read_config(repository / DETECTOR.name)
        _check_switch(now, new, wanted, address)
        if takes_gpu_pixels(now):
            take_gpu_pixels(new)
        fit_alike(new, now)
        control.load(DETECTOR.name, timeout_s, new)
        serving = [int(version) for model, version in control.served() if model == DETECTOR.name]
    except grpc.RpcError as error:
        reason = explain_rpc_error(error, Target(address, DETECTOR.name, timeout_s, credentials)).error
        if isinstance(reason, (ServerUnavailable, AccessDenied)):
            raise reason from error
        failure = load_failure(DETECTOR.name, error.details() or "")
        raise BuildError(f"{address} does not take version {wanted}: {failure.reason}") from error
    finally:
        control.close()
    if serving != [wanted]:
        raise BuildError(f"{address} serves version {serving} of the detector and not {wanted}; see the server's log")
    return wanted


def _check_switch(
    now: model_config_pb2.ModelConfig, new: model_config_pb2.ModelConfig, wanted: int, address: str
) -> None:
    """Make sure that a server's stages fit another version of the detector as they are.

    Raises:
        BuildError: they do not.
    """
    after_a_restart = (
        f"the server serves it after `triptych activate {wanted}` without --address and a restart of the server"
    )
    before, after = detector_spec(now), detector_spec(new)
    if replace(before, class_names=after.class_names) != after:
        raise BuildError(
            f"version {wanted} differs from what {address} serves in more than its weights "
            f"({before} became {after}); {after_a_restart}"
        )
    # An engine in one of Triton's own backends cannot say in its answers which version it is.
    if before.class_names != after.class_names and not names_itself(now) & names_itself(new):
        raise BuildError(
            f"version {wanted} names its classes otherwise than what {address} serves, and its target does not say in "
            f"its answers which names are meant; {after_a_restart}"
        )
