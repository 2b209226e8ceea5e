"""Whether a deployment has what runs a version's target, and is of the kind that its engine was built for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from triptych.machine import Gpu
from triptych.packages import install_command
from triptych.serving.doctor.facts import MODEL_FILES, Deployment, PublishedVersion, tensorrt_command
from triptych.serving.doctor.findings import Finding, Severity, passed, refusal, warning

BACKENDS = {"tensorrt": "TensorRT", "onnxruntime": "ONNX Runtime"}
"""Targets that a backend of Triton runs; the others run in its Python backend, from Python packages."""

PLAN_TARGETS = tuple(target for target, name in MODEL_FILES.items() if name == "model.plan")

EXTRAS = {"openvino": "", "onnxruntime": "", "tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}
"""The Python packages that a detector runs in, each with the extra of Triptych that brings it; empty: always there."""

REBUILD = "build it again there with `triptych build MODEL.onnx`"


def check_loading(version: PublishedVersion, deployment: Deployment) -> Iterator[Finding]:
    """Check that what runs the version's target is there, and that the engine was built for it."""
    target, engine = version.target, version.engine
    if target in BACKENDS and deployment.is_pip:
        yield refusal(
            "backend-missing",
            f"it needs Triton's {BACKENDS[target]} backend, and Triton from pip has only the Python backend",
            f"run it in a Triton container, or publish it with --target {target}-python",
        )
        return
    if target in MODEL_FILES and target not in BACKENDS:
        yield from _check_package(_package_of(version), deployment)
    if target in PLAN_TARGETS and engine:
        yield from _check_tensorrt(engine, target, runtime_of(version, deployment), deployment)
        yield from _check_gpus(engine, deployment)
    yield from _check_openvino(version, deployment)


def runtime_of(version: PublishedVersion, deployment: Deployment) -> str:
    """Return the version of the TensorRT that would load a plan; empty if it is not known."""
    if version.target == "tensorrt":
        return deployment.tensorrt
    return (deployment.packages or {}).get(_package_of(version), "")


def same_release(one: str, other: str) -> bool:
    """Return whether two versions are the same as far as both say it: 10.16 is 10.16.1."""
    ours, theirs = _numbers(one), _numbers(other)
    shared = min(len(ours), len(theirs))
    return ours[:shared] == theirs[:shared]


def _package_of(version: PublishedVersion) -> str:
    """Return the Python package that a version runs in."""
    if version.target in PLAN_TARGETS:
        return str(version.engine.get("builder", "tensorrt"))
    return version.target.removesuffix("-python")


def _check_package(package: str, deployment: Deployment) -> Iterator[Finding]:
    if package not in EXTRAS:
        return
    needs = f"it needs the Python package of {package}"
    if deployment.packages is None:
        yield warning("package-not-visible", f"{needs}, and those of {deployment.name} cannot be seen from here")
    elif package not in deployment.packages:
        command = install_command(EXTRAS[package]) if EXTRAS[package] else f"pip install {package}"
        yield refusal("package-missing", f"{needs}, which {deployment.name} does not have", f"`{command}`")


def _check_openvino(version: PublishedVersion, deployment: Deployment) -> Iterator[Finding]:
    built = (version.manifest.get("versions") or {}).get("openvino")
    here = (deployment.packages or {}).get("openvino")
    if version.target == "openvino" and built and here and built != here:
        yield warning(
            "openvino-version",
            f"it was published with OpenVINO {built}, and {deployment.name} has {here}: verify it again",
        )


def _check_tensorrt(engine: Mapping[str, Any], target: str, runtime: str, deployment: Deployment) -> Iterator[Finding]:
    """Compare the builder and its version with the version of the runtime, which is empty if it is not known."""
    builder, built = engine.get("builder", "tensorrt"), str(engine.get("version", ""))
    title = "TensorRT for RTX" if builder == "tensorrt-rtx" else "TensorRT"
    if target == "tensorrt" and builder == "tensorrt-rtx":
        yield refusal(
            "plan-of-rtx",
            "it was built by TensorRT for RTX, whose plans Triton's TensorRT backend does not read",
            "publish it with --target tensorrt-rtx, or build it with TensorRT",
        )
        return
    if not runtime or not built:
        if target == "tensorrt" or deployment.packages is None:
            yield warning(
                "tensorrt-version-unknown",
                f"it was built by {title} {built or '?'}, and which one {deployment.name} has is not known",
            )
        return
    old, new = _numbers(built), _numbers(runtime)
    if old == new:
        return
    if same_release(built, runtime):
        yield warning(
            "tensorrt-build-unknown",
            f"it was built by {title} {built}, and {deployment.name} has {runtime}: which build of it is not known, "
            "and a plan loads only in its own",
            "have it verified there",
        )
        return
    both = f"it was built by {title} {built}, and {deployment.name} has {runtime}"
    if not engine.get("version_compatible"):
        advice = f"{REBUILD}, after `{tensorrt_command(runtime)}`" if builder == "tensorrt" else REBUILD
        yield refusal("tensorrt-version", f"{both}, which reads only plans of its own version", advice)
    elif new < old and new[0] < old[0]:
        yield refusal("tensorrt-older", f"{both}, which is older", REBUILD)
    elif new[0] > old[0]:
        yield warning(
            "tensorrt-newer",
            f"{both}: version-compatible plans are promised only within {old[0]}.x",
            f"try it, or {REBUILD}",
        )
    elif target == "tensorrt":
        yield passed(
            "tensorrt-compatible",
            f"{both}: it is version-compatible; Triton needs --backend-config=tensorrt,version-compatible=true",
        )
    else:
        yield passed(
            "tensorrt-compatible",
            f"{both}: it is version-compatible, so it carries code that runs as the server does "
            "(engine_host_code_allowed): serve only plans that you trust",
        )


def _check_gpus(engine: Mapping[str, Any], deployment: Deployment) -> Iterator[Finding]:
    """Compare the GPUs with those that the engine was built for."""
    built_for = f"it was built for {_built_for(engine)}"
    if deployment.gpus is None:
        yield warning("gpu-not-visible", f"{built_for}, and the GPU of {deployment.name} cannot be seen from here")
        return
    if not deployment.gpus:
        yield refusal("gpu-missing", f"it needs an NVIDIA GPU, and {deployment.name} has none that its driver shows")
        return
    unfit = []
    for gpu in deployment.gpus:
        if gpu.compute_capability and not _runs_on(engine, gpu.compute_capability):
            unfit.append(_described(gpu))
        else:
            yield from _check_fit(engine, gpu, deployment.name)
        yield from _check_driver(engine, gpu)
    if unfit:
        severity: Severity = "will not load" if len(unfit) == len(deployment.gpus) else "warning"
        yield Finding(severity, "gpu-unfit", "", f"{built_for}, and {deployment.name} has {', '.join(unfit)}", REBUILD)


def _check_fit(engine: Mapping[str, Any], gpu: Gpu, name: str) -> Iterator[Finding]:
    """Yield what may be wrong with a GPU that may run the engine."""
    if not gpu.compute_capability:
        yield warning("gpu-unknown", f"it was built for {_built_for(engine)}, and {name} has {_described(gpu)}")
    elif engine.get("hardware_compatibility", "none") == "none" and engine.get("gpu") not in (None, gpu.name):
        yield warning(
            "gpu-other-model",
            f"it was built on {engine['gpu']} and {name} has {_described(gpu)}: it may load and be slow",
            REBUILD,
        )


def _check_driver(engine: Mapping[str, Any], gpu: Gpu) -> Iterator[Finding]:
    built_with, driver = _numbers(str(engine.get("driver") or "")), _numbers(gpu.driver)
    if built_with and driver and driver[0] < built_with[0]:
        yield warning(
            "driver-older",
            f"it was built with driver {engine['driver']}, and {gpu.name} has the older {gpu.driver}",
            "update the driver if it does not load",
        )


def _described(gpu: Gpu) -> str:
    return f"{gpu.name} (compute capability {gpu.compute_capability or 'not known'})"


def _runs_on(engine: Mapping[str, Any], capability: str) -> bool:
    if engine.get("hardware_compatibility") == "ampere_plus":
        return _numbers(capability) >= (8, 0)
    return capability in (engine.get("compute_capabilities") or [capability])


def _built_for(engine: Mapping[str, Any]) -> str:
    if engine.get("hardware_compatibility") == "ampere_plus":
        return "compute capability 8.0 and above"
    return f"compute capability {', '.join(engine.get('compute_capabilities') or ['not known'])}"


def _numbers(version: str) -> tuple[int, ...]:
    """Return a version as numbers to compare, up to the first part that is not a number."""
    parts = []
    for part in version.split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)
