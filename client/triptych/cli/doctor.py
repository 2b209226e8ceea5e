"""`triptych doctor`: what would not load, and why."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import grpc
import typer
from rich.console import Console
from rich.text import Text
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from triptych.contract import DETECTION, DETECTOR, MAX_BATCH, MODELS
from triptych.errors import BuildError, ContractError, ServerStartError
from triptych.machine import Gpu, nvidia_gpus
from triptych.model_config import read_config
from triptych.serving import preflight, repository
from triptych.serving.doctor import MODEL_FILES, RELEASES, Finding, Place, Published, Severity, examine, worst
from triptych.wire.channel import check_address
from triptych.wire.model_control import CALL_TIMEOUT_S, ModelControl
from triptych.wire.status import Target, explain_rpc_error

STYLES: dict[Severity, str] = {"ok": "green", "warning": "yellow", "will not load": "bold red"}

DISTRIBUTIONS = {
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu13-bindings", "tensorrt-cu12-bindings"),
    "tensorrt-rtx": (
        *("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
        *("tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu12-bindings"),
    ),
}
"""The names under which pip knows each runtime."""

JETSON_RELEASE = Path("/etc/nv_tegra_release")

SMI_TIMEOUT_S = 20.0

EMBEDDED = "triptych-"
"""What the names of servers begin with that `triptych serve` starts."""


def doctor(
    model_repository: Annotated[Path, typer.Option(help="The model repository.")] = repository.DEFAULT_REPOSITORY,
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="The running server that is to load it; default: this machine."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write the findings as JSON.")] = False,
) -> None:
    """Compare the published versions with what would load them, and say what will not load and why.

    Exit codes: 0 nothing is worse than a warning, 1 something will not load.
    """
    published = read_versions(model_repository)
    place = ask_server(address) if address else look_around(dict(os.environ))
    configs, broken = _read_configs(model_repository)
    place = replace(place, troubles=place.troubles + broken)
    ensemble = configs.get(DETECTION.name)
    findings = examine(place, published, ensemble.max_batch_size if ensemble else MAX_BATCH)
    if as_json:
        typer.echo(json.dumps({"worst": worst(findings), "findings": [asdict(each) for each in findings]}, indent=2))
    else:
        _print(findings)
    if worst(findings) == "will not load":
        raise typer.Exit(1)


def _print(findings: list[Finding]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        label = Text(f"{finding.severity:<14}", STYLES[finding.severity])
        console.print(Text.assemble(label, (f"{finding.subject}: ", "bold"), finding.text))


# --- What was published -----------------------------------------------------------------------------------------------


def read_versions(model_repository: Path) -> list[Published]:
    """The facts about every published version, oldest first.

    Raises:
        BuildError: there is no such repository, or it has no version.
    """
    found = repository.versions(model_repository)
    if not found:
        raise BuildError(f"{model_repository} has no published detector; publish one with `python build MODEL.onnx`")
    return [_read_version(each) for each in found]


def _read_version(found: repository.Version) -> Published:
    config, config_error = None, ""
    try:
        config = read_config(found.directory)
    except ContractError as error:
        config_error = " ".join(str(error).partition("; ")[0].split())
    files = [path for name in sorted(set(MODEL_FILES.values())) if (path := found.directory / name).is_file()]
    return Published(
        number=found.number,
        is_served=found.is_served,
        manifest=found.manifest if isinstance(found.manifest, dict) else {},
        sha256={path.name: _sha256(path) for path in files},
        sizes={path.name: path.stat().st_size for path in files},
        config=config,
        config_error=config_error,
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _read_configs(model_repository: Path) -> tuple[dict[str, model_config_pb2.ModelConfig], tuple[str, ...]]:
    """The configurations that Triton reads, by model; and what is wrong with the others, in sentences."""
    configs, troubles = {}, []
    for model in MODELS:
        try:
            configs[model.name] = read_config(model_repository / model.name)
        except ContractError as error:  # noqa: PERF203  (each model is looked at, whatever the others are)
            troubles.append(" ".join(str(error).split()))
    return configs, tuple(troubles)


# --- What would load it -----------------------------------------------------------------------------------------------


def look_around(environment: Mapping[str, str]) -> Place:
    """The facts about this machine: the Triton container that we are in, or else Triton from pip."""
    triton = environment.get("TRITON_SERVER_VERSION", "")
    container = environment.get("NVIDIA_TRITON_SERVER_VERSION", "")
    if container and not triton:
        triton = next((known for known, (name, _) in RELEASES.items() if name == container), "")
    if triton or container:
        return Place(
            name=f"this Triton container {container}".strip(),
            triton=triton,
            packages=installed_packages(),
            gpus=visible_gpus(),
            doubts=tuple(_python_doubts(environment)),
        )
    inside = " (a container)" if Path("/.dockerenv").exists() else ""
    return Place(
        name=f"Triton from pip on this machine{inside}",
        is_pip=True,
        packages=installed_packages(),
        gpus=visible_gpus(),
        troubles=tuple(_pip_troubles()),
        doubts=tuple(_python_doubts(environment)),
    )


def ask_server(address: str) -> Place:
    """The facts about a running server; its machine's too, where that is this one.

    Raises:
        RequestError: it does not answer.
        ContractError: the address is none.
    """
    channel = grpc.insecure_channel(check_address(address))
    control = ModelControl(address)
    try:
        service = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        metadata = service.ServerMetadata(service_pb2.ServerMetadataRequest(), timeout=CALL_TIMEOUT_S)
        serving = frozenset(int(number) for model, number in control.served() if model == DETECTOR.name)
    except grpc.RpcError as error:
        raise explain_rpc_error(error, Target(address, DETECTOR.name, CALL_TIMEOUT_S)).error from error
    finally:
        control.close()
        channel.close()
    is_pip = metadata.name.startswith(EMBEDDED)
    is_here = address.rpartition(":")[0] in ("127.0.0.1", "localhost", "[::1]")
    return Place(
        name=f"the server at {address}",
        triton=metadata.version,
        is_pip=is_pip,
        packages=installed_packages() if is_pip and is_here else None,
        gpus=visible_gpus() if is_here else None,
        serving=serving,
    )


def installed_packages() -> dict[str, str]:
    """Versions of the runtimes that this Python has, by runtime."""
    found = {}
    for runtime, names in DISTRIBUTIONS.items():
        for name in names:
            try:
                found[runtime] = version(name)
                break
            except PackageNotFoundError:
                continue
    return found


def visible_gpus() -> tuple[Gpu, ...]:
    """The GPUs that `nvidia-smi` shows; a Jetson has no such program, and says what it is in a file."""
    gpus = nvidia_gpus(SMI_TIMEOUT_S)
    if not gpus and JETSON_RELEASE.is_file():
        release = JETSON_RELEASE.read_text(errors="replace").split("\n", 1)[0].strip("# ")
        return (Gpu(name=f"Jetson, {release}"),)
    return gpus


def _pip_troubles() -> list[str]:
    """What keeps Triton from pip from starting, in sentences."""
    troubles = []
    for check in (preflight.find_installation, preflight.check_shared_memory):
        try:
            check()
        except ServerStartError as error:  # noqa: PERF203  (one does not make the other needless)
            troubles.append(str(error))
    try:
        numpy = version("numpy")
        if int(numpy.split(".")[0]) >= 2 and version("nvidia-pytriton"):
            troubles.append(
                f"numpy {numpy} is installed, and the models of Triton from pip need one below 2; "
                "run `pip install 'numpy<2'`"
            )
    except PackageNotFoundError:
        pass  # without Triton from pip, which was said above, any numpy will do
    return troubles


def _python_doubts(environment: Mapping[str, str]) -> list[str]:
    """A model's process takes its packages from the first python3 on PATH; `triptych serve` sees to that itself."""
    first = shutil.which("python3", path=environment.get("PATH"))
    if first and Path(first).parent.resolve() == Path(sys.executable).parent.resolve():
        return []
    return [
        f"the first python3 on PATH is {first or 'none'} and not that of {Path(sys.executable).parent}: a Triton "
        "that `triptych serve` did not start takes its models' packages from there; activate the environment first"
    ]
