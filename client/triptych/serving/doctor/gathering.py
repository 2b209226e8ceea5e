"""Gathers the facts: about published versions from their files, about what would load them from where it runs."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from triptych import opencv
from triptych._version import __version__
from triptych.contract import DETECTION, DETECTOR, MAX_BATCH, MODELS
from triptych.errors import BuildError, ContractError, ServerStartError
from triptych.files import sha256
from triptych.machine import Gpu, available_cores, cpu_model, nvidia_gpus
from triptych.model_config import read_config
from triptych.serving import preflight, repository, template
from triptych.serving.doctor.age import check_layout
from triptych.serving.doctor.examination import examine
from triptych.serving.doctor.facts import MODEL_FILES, RELEASES, Deployment, PublishedVersion
from triptych.serving.doctor.findings import Finding
from triptych.serving.fitting import Fitting
from triptych.wire.channel import is_here, open_channel
from triptych.wire.credentials import LOCAL, Credentials
from triptych.wire.model_control import CALL_TIMEOUT_S, ModelControl
from triptych.wire.status import Target, explain_rpc_error

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

OWN_PACKAGES = (
    *("nvidia-pytriton", "tritonclient", "openvino", "onnx", "onnxruntime", "numpy", "locust"),
    *("opencv-python-headless", "opencv-python", "pillow", "faster-coco-eval"),
)
"""What a report of a fault should name, with `DISTRIBUTIONS`."""

JETSON_RELEASE = Path("/etc/nv_tegra_release")


EMBEDDED = "triptych-"
"""How the names of servers begin that `triptych serve` starts."""


def describe_machine() -> dict[str, Any]:
    """Return what this machine is and which packages it has, as plain values: what a report of a fault should name."""
    wanted = (*OWN_PACKAGES, *(name for names in DISTRIBUTIONS.values() for name in names))
    installed = {package.metadata["Name"]: package.version for package in distributions()}
    return {
        "triptych": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cores": available_cores(),
        "gpus": [asdict(gpu) for gpu in nvidia_gpus()],
        "packages": {name: installed[name] for name in wanted if name in installed},
    }


def diagnose(
    model_repository: Path, address: str | None = None, *, verified: bool = False, credentials: Credentials = LOCAL
) -> list[Finding]:
    """Return all findings about the versions of a repository, for a running server or else for this machine.

    With `verified` they are about the version alone that is served, which is not to be if no gate has passed it here.

    Raises:
        BuildError: there is no such repository, or it has no version.
        RequestError: the server does not answer.
        ContractError: the address is not HOST:PORT.
    """
    versions = read_versions(model_repository)
    if address:
        deployment = ask_server(address, credentials)
    else:
        deployment = inspect_machine(os.environ, Fitting(model_repository).shared_memory_bytes())
    configs, errors = read_models(model_repository)
    ensemble = configs.get(DETECTION.name)
    ensemble_batch = ensemble.max_batch_size if ensemble else MAX_BATCH
    findings = examine(
        replace(deployment, errors=deployment.errors + errors), versions, ensemble_batch, verified=verified
    )
    old = check_layout(configs, template.configs())
    return [*(replace(finding, subject=str(model_repository)) for finding in old), *findings]


# --- The published versions -------------------------------------------------------------------------------------------


def read_versions(model_repository: Path) -> list[PublishedVersion]:
    """Return the facts about every published version, oldest first.

    Raises:
        BuildError: there is no such repository, or it has no version.
    """
    versions = repository.versions(model_repository)
    if not versions:
        raise BuildError(f"{model_repository} has no published detector; publish one with `triptych build MODEL.onnx`")
    return [_read_version(version) for version in versions]


def _read_version(published: repository.Version) -> PublishedVersion:
    config, config_error = None, ""
    try:
        # What is served is loaded with the file above it, which somebody may have edited.
        config = read_config(published.directory.parent if published.is_served else published.directory)
    except ContractError as error:
        config_error = " ".join(str(error).partition("; ")[0].split())
    plans = published.manifest.get("plans") or {}
    names = [*sorted(set(MODEL_FILES.values())), *(f"model.plan.{capability}" for capability in plans)]
    files = [path for name in names if (path := published.directory / name).is_file()]
    return PublishedVersion(
        number=published.number,
        is_served=published.is_served,
        manifest=published.manifest if isinstance(published.manifest, dict) else {},
        sha256={path.name: sha256(path) for path in files},
        sizes={path.name: path.stat().st_size for path in files},
        config=config,
        config_error=config_error,
    )


def read_models(model_repository: Path) -> tuple[dict[str, model_config_pb2.ModelConfig], tuple[str, ...]]:
    """Return the configurations by the model's name, and what is wrong with those that cannot be read, in sentences."""
    configs: dict[str, model_config_pb2.ModelConfig] = {}
    errors = []
    for model in MODELS:
        try:
            configs[model.name] = read_config(model_repository / model.name)
        except ContractError as error:  # noqa: PERF203  (one unreadable configuration must not hide another)
            errors.append(" ".join(str(error).split()))
    return configs, tuple(errors)


# --- The deployment ---------------------------------------------------------------------------------------------------


def inspect_machine(environment: Mapping[str, str], shared_memory_bytes: int | None = None) -> Deployment:
    """Return the facts about this machine: the Triton container that this process runs in, or else Triton from pip.

    Args:
        environment: the variables of a process, which say what container this is.
        shared_memory_bytes: what the models need to exchange tensors, if that is known.
    """
    triton = environment.get("TRITON_SERVER_VERSION", "")
    container = environment.get("NVIDIA_TRITON_SERVER_VERSION", "")
    if container and not triton:
        triton = next((known for known, (name, _) in RELEASES.items() if name == container), "")
    if triton or container:
        return Deployment(
            name=f"this Triton container {container}".strip(),
            triton=triton,
            trt_version=environment.get("TRT_VERSION", "").partition("+")[0],
            packages=installed_packages(),
            gpus=visible_gpus(),
            errors=tuple(_opencv_errors()),
            warnings=(*_python_warnings(environment), *_opencv_warnings()),
        )
    inside = " (a container)" if Path("/.dockerenv").exists() else ""
    return Deployment(
        name=f"Triton from pip on this machine{inside}",
        is_pip=True,
        packages=installed_packages(),
        gpus=visible_gpus(),
        errors=(*_pip_errors(shared_memory_bytes), *_opencv_errors()),
        warnings=(*_python_warnings(environment), *_opencv_warnings()),
    )


def ask_server(address: str, credentials: Credentials = LOCAL) -> Deployment:
    """Return the facts about a running server, and about its machine where that is this one.

    Raises:
        RequestError: it does not answer.
        ContractError: the address is not HOST:PORT.
    """
    channel = open_channel(grpc, address, credentials)
    control = ModelControl(address, credentials=credentials)
    try:
        service = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        metadata = service.ServerMetadata(service_pb2.ServerMetadataRequest(), timeout=CALL_TIMEOUT_S)
        serving = frozenset(int(number) for model, number in control.served() if model == DETECTOR.name)
    except grpc.RpcError as error:
        raise explain_rpc_error(error, Target(address, DETECTOR.name, CALL_TIMEOUT_S, credentials)).error from error
    finally:
        control.close()
        channel.close()
    is_pip = metadata.name.startswith(EMBEDDED)
    return Deployment(
        name=f"the server at {address}",
        triton=metadata.version,
        is_pip=is_pip,
        packages=installed_packages() if is_pip and is_here(address) else None,
        gpus=visible_gpus() if is_here(address) else None,
        serving=serving,
    )


def installed_packages() -> dict[str, str]:
    """Return the versions of the runtimes that this Python has, by runtime."""
    versions = {}
    for runtime, names in DISTRIBUTIONS.items():
        for name in names:
            try:
                versions[runtime] = version(name)
                break
            except PackageNotFoundError:
                continue
    return versions


def visible_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that the driver lists. A Jetson may list none, but it says in a file what it is."""
    gpus = nvidia_gpus()
    if not gpus and JETSON_RELEASE.is_file():
        release = JETSON_RELEASE.read_text(errors="replace").split("\n", 1)[0].strip("# ")
        return (Gpu(name=f"Jetson, {release}"),)
    return gpus


def _pip_errors(shared_memory_bytes: int | None) -> list[str]:
    """Return what keeps Triton from pip from starting, in sentences."""
    errors = []
    for check in (preflight.find_installation, partial(preflight.check_shared_memory, shared_memory_bytes)):
        try:
            check()
        except ServerStartError as error:  # noqa: PERF203  (one failure must not hide another)
            errors.append(str(error))
    try:
        numpy = version("numpy")
        if int(numpy.split(".")[0]) >= 2 and version("nvidia-pytriton"):
            errors.append(
                f"numpy {numpy} is installed, and the models of Triton from pip need one below 2; "
                "run `pip install 'numpy<2'`"
            )
    except PackageNotFoundError:
        pass  # without Triton from pip, which is an error of its own above, any numpy will do
    return errors


def _opencv_errors() -> list[str]:
    """Return why OpenCV cannot be used, in a sentence, if it cannot."""
    problem = opencv.problem()
    return [problem] if problem else []


def _opencv_warnings() -> list[str]:
    """Return a warning if other packages have overwritten the OpenCV that this release was tested with."""
    packages = [] if opencv.problem() else opencv.overwriting()
    return [
        f"{package} is installed over {opencv.OURS}, and this release was not tested with it; "
        f"mend it with `{opencv.remedy()}`"
        for package in packages[:1]
    ]


def _python_warnings(environment: Mapping[str, str]) -> list[str]:
    """Return a warning if a model's process would take its packages from another Python than this one.

    It takes them from the first python3 on PATH. `triptych serve` sets PATH accordingly.
    """
    first = shutil.which("python3", path=environment.get("PATH"))
    if first and Path(first).parent.resolve() == Path(sys.executable).parent.resolve():
        return []
    return [
        f"the first python3 on PATH is {first or 'none'} and not that of {Path(sys.executable).parent}: a Triton "
        "that `triptych serve` did not start takes its models' packages from there; activate the environment first"
    ]
