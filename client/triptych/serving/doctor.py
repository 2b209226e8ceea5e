"""What would not load, and why: findings from facts about what was published and about what would load it.

Everything here is a pure function; `triptych doctor` gathers the facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tritonclient.grpc import model_config_pb2

from triptych.contract import CANDIDATES, MAX_BATCH, PIXELS
from triptych.machine import Gpu

Severity = Literal["ok", "warning", "will not load"]

SEVERITIES: tuple[Severity, ...] = ("ok", "warning", "will not load")
"""From best to worst."""

RELEASES: dict[str, tuple[str, str | None]] = {
    "2.51": ("24.10", None),
    "2.69": ("26.05", "10.16"),
    "2.70": ("26.06", "11.0"),
    "2.71": ("26.07", "11.1"),
    "2.72": ("26.08", "11.2.1"),
    "2.73": ("26.09", None),
}
"""Container and TensorRT by release of Triton, read from build scripts in 2026-11; None and others are not known."""

MODEL_FILES = {
    "openvino": "model.onnx",
    "onnxruntime": "model.onnx",
    "onnxruntime-python": "model.onnx",
    "tensorrt": "model.plan",
    "tensorrt-python": "model.plan",
    "tensorrt-rtx": "model.plan",
}
"""The detector's file by target."""

BACKENDS = {"tensorrt": "TensorRT", "onnxruntime": "ONNX Runtime"}
"""Targets that a backend of Triton runs; the others run in its Python backend, from Python packages."""

PLAN_TARGETS = tuple(target for target, name in MODEL_FILES.items() if name == "model.plan")

PACKAGES = {
    "openvino": "openvino",
    "onnxruntime": "onnxruntime",
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt-rtx-cu12-libs tensorrt-rtx-cu12-bindings",
}
"""What pip installs for a detector that runs in the Python backend."""

REBUILD = "build it again there with `python build MODEL.onnx`"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        severity: one of `SEVERITIES`.
        subject: what it is about: a version, or the place that would load it.
        text: what was found, and where it is not well, what to do.
    """

    severity: Severity
    subject: str
    text: str


@dataclass(frozen=True)
class Place:
    """What would load the models.

    Attributes:
        name: what to call it in a sentence.
        triton: the version of Triton, such as "2.70.0"; empty if it is not known.
        is_pip: whether it is Triton from pip, which has the Python backend alone.
        packages: versions of the runtimes' Python packages, by `PACKAGES`' keys; None if they cannot be seen.
        gpus: the GPUs; None if they cannot be seen.
        troubles: what else keeps it from serving, in sentences.
        doubts: what may, in sentences.
        serving: versions of the detector that it serves now; None if it is no running server.
    """

    name: str
    triton: str = ""
    is_pip: bool = False
    packages: Mapping[str, str] | None = None
    gpus: tuple[Gpu, ...] | None = None
    troubles: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    serving: frozenset[int] | None = None

    @property
    def tensorrt(self) -> str:
        """The version of TensorRT in Triton's backend, as far as it is known."""
        return RELEASES.get(minor(self.triton), ("", None))[1] or ""


@dataclass(frozen=True)
class Published:
    """A version of the detector.

    Attributes:
        number: its number.
        is_served: whether the repository serves it.
        manifest: its manifest; empty if it has none that can be read.
        sha256: hashes of the model files that are there, by name.
        sizes: their sizes in bytes, by name.
        config: its configuration, or None.
        config_error: why there is no configuration, in a sentence.
    """

    number: int
    is_served: bool
    manifest: Mapping[str, Any] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    config: model_config_pb2.ModelConfig | None = None
    config_error: str = ""

    @property
    def subject(self) -> str:
        """What to call it in a finding."""
        return f"version {self.number}{' (served)' if self.is_served else ''}"


_Found = Iterator[tuple[Severity, str]]


def examine(place: Place, published: Iterable[Published], ensemble_batch: int = MAX_BATCH) -> list[Finding]:
    """All findings: about the place, then version by version.

    Args:
        place: what would load the versions.
        published: the versions.
        ensemble_batch: the largest batch that the ensemble hands to the detector.
    """
    versions = list(published)
    findings = [Finding(severity, place.name, text) for severity, text in _of_place(place, versions)]
    for version in versions:
        found = [
            Finding(severity, version.subject, text)
            for part in (
                _of_files(version),
                _of_config(version, ensemble_batch),
                _of_loading(version, place),
                _of_verification(version),
            )
            for severity, text in part
        ]
        if all(finding.severity != "will not load" for finding in found):
            found.append(Finding("ok", version.subject, f"nothing found that keeps {place.name} from loading it"))
        findings += found
    return findings


def worst(findings: Iterable[Finding]) -> Severity:
    """The worst severity among findings; "ok" if there are none."""
    return max((finding.severity for finding in findings), key=SEVERITIES.index, default="ok")


def minor(version: str) -> str:
    """The first two parts of a version."""
    return ".".join(version.split(".")[:2])


def _numbers(version: str) -> tuple[int, ...]:
    """A version as numbers to compare, up to the first part that is none."""
    parts = []
    for part in version.split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)


# --- The place --------------------------------------------------------------------------------------------------------


def _of_place(place: Place, versions: list[Published]) -> _Found:
    for trouble in place.troubles:
        yield "will not load", trouble
    for doubt in place.doubts:
        yield "warning", doubt
    if place.triton and not place.is_pip:
        container, tensorrt = RELEASES.get(minor(place.triton), ("", None))
        if container:
            yield "ok", f"Triton {place.triton} is container {container}, with TensorRT {tensorrt or '(not known)'}"
        else:
            yield "warning", f"which TensorRT comes with Triton {place.triton} is not known to this release of Triptych"
    served = [version.number for version in versions if version.is_served]
    if not served:
        yield (
            "will not load",
            "the repository serves no version; publish one with `python build MODEL.onnx`, "
            "or choose one with `triptych activate VERSION`",
        )
    elif place.serving is not None and set(served) != place.serving:
        now = ", ".join(map(str, sorted(place.serving))) or "none"
        yield (
            "warning",
            f"it serves version {now} of the detector and the repository says {served[0]}; "
            f"switch with `triptych activate {served[0]} --address HOST:PORT`",
        )


# --- A version --------------------------------------------------------------------------------------------------------


def _of_files(version: Published) -> _Found:
    """The manifest, and the model's file as the manifest knows it."""
    if not version.manifest:
        yield "warning", "it has no manifest that can be read, so little can be said of it; publish it again"
        return
    target = version.manifest.get("target")
    name = MODEL_FILES.get(str(target))
    if name is None:
        yield "warning", f"its target {target!r} is not known to this release of Triptych"
    elif name not in version.sha256:
        yield "will not load", f"its {name} is missing; publish it again"
    elif version.sha256[name] != version.manifest.get("model_sha256"):
        planned = _engine(version).get("plan_bytes")
        size = f" ({version.sizes.get(name)} bytes of {planned})" if name == "model.plan" and planned else ""
        yield "will not load", f"its {name} is not the file that was published{size}; publish it again"


def _of_config(version: Published, ensemble_batch: int) -> _Found:
    """The configuration against the version's number, and against what its engine takes and gives."""
    config = version.config
    if config is None:
        yield "will not load", f"{version.config_error}; publish it again"
        return
    if list(config.version_policy.specific.versions) not in ([], [version.number]):
        yield "will not load", f"its config.pbtxt serves another version than {version.number}; publish it again"
    for name, dims, expected in _tensors(version, config):
        if not _fit(dims, expected):
            yield (
                "will not load",
                f"its config.pbtxt says {name} {dims}, but the model has {expected}; publish it again",
            )
    if config.max_batch_size < ensemble_batch:
        yield (
            "will not load",
            f"its config.pbtxt forms batches of up to {config.max_batch_size}, and the ensemble brings "
            f"{ensemble_batch}; build it for batches of up to {ensemble_batch}",
        )
    bounds = _batch_bounds(_engine(version))
    if bounds is None:
        return
    smallest, largest = bounds
    if config.max_batch_size > largest:
        yield (
            "will not load",
            f"its config.pbtxt forms batches of up to {config.max_batch_size}, but its engine takes {largest} at most; "
            "publish it again",
        )
    if smallest > 1:
        yield "warning", f"its engine takes batches of {smallest} and more, so that a single image fails"


def _tensors(version: Published, config: model_config_pb2.ModelConfig) -> Iterator[tuple[str, list[int], list[int]]]:
    """Name, dims of the configuration, and dims of the model, of each tensor whose dims are known from both."""
    engine, adapted = _engine(version), version.manifest.get("adapted") or {}
    known = {
        tensor["name"]: list(tensor["shape"][1:]) for side in ("inputs", "outputs") for tensor in engine.get(side, ())
    }
    spec = adapted.get("spec") or {}
    if not known and spec and "candidates" in adapted:
        known = {PIXELS.name: [spec["height"], spec["width"], 3], CANDIDATES.name: [adapted["candidates"], 6]}
    for tensor in (*config.input, *config.output):
        if tensor.name in known:
            yield tensor.name, list(tensor.dims), known[tensor.name]


def _fit(one: list[int], other: list[int]) -> bool:
    return len(one) == len(other) and all(-1 in pair or pair[0] == pair[1] for pair in zip(one, other, strict=True))


def _batch_bounds(engine: Mapping[str, Any]) -> tuple[int, int] | None:
    """The smallest and the largest batch of an engine."""
    profiles = engine.get("profiles") or ()
    if profiles:
        return min(profile["min"] for profile in profiles), max(profile["max"] for profile in profiles)
    fixed = [tensor["shape"][0] for tensor in engine.get("inputs", ()) if tensor["shape"][0] > 0]
    return (fixed[0], fixed[0]) if fixed else None


def _of_loading(version: Published, place: Place) -> _Found:
    """Whether what runs the target is there, and is the one that it was built for."""
    target = str(version.manifest.get("target"))
    if target in BACKENDS and place.is_pip:
        instead = f"{target}-python"
        yield (
            "will not load",
            f"it needs Triton's {BACKENDS[target]} backend, and Triton from pip has the Python backend alone; "
            f"run it in a Triton container, or publish it with --target {instead}",
        )
        return
    engine = _engine(version)
    package = str(engine.get("builder", "tensorrt")) if target in PLAN_TARGETS else target.removesuffix("-python")
    if target in MODEL_FILES and target not in BACKENDS:
        yield from _of_package(package, place)
    if target in PLAN_TARGETS and engine:
        here = place.tensorrt if target == "tensorrt" else (place.packages or {}).get(package, "")
        yield from _of_engine(engine, target, here, place)
        yield from _of_gpus(engine, place)
    made = (version.manifest.get("versions") or {}).get(target)
    now = (place.packages or {}).get(target)
    if target == "openvino" and made and now and made != now:
        yield "warning", f"it was published with OpenVINO {made}, and {place.name} has {now}: verify it again"


def _of_package(package: str, place: Place) -> _Found:
    if package not in PACKAGES:
        return
    if place.packages is None:
        yield "warning", f"it needs the Python package of {package}, and those of {place.name} cannot be seen from here"
    elif package not in place.packages:
        yield (
            "will not load",
            f"it needs the Python package of {package}, which {place.name} does not have; "
            f"`pip install {PACKAGES[package]}`",
        )


def _of_engine(engine: Mapping[str, Any], target: str, here: str, place: Place) -> _Found:
    """The builder and its version against the runtime's; `here` is empty where that is not known."""
    builder, built = engine.get("builder", "tensorrt"), str(engine.get("version", ""))
    title = "TensorRT for RTX" if builder == "tensorrt-rtx" else "TensorRT"
    if target == "tensorrt" and builder == "tensorrt-rtx":
        yield (
            "will not load",
            "it was built by TensorRT for RTX, whose plans Triton's TensorRT backend does not read; "
            "publish it with --target tensorrt-rtx, or build it with TensorRT",
        )
        return
    if not here or not built:
        if target == "tensorrt" or place.packages is None:
            yield "warning", f"it was built by {title} {built or '?'}, and which one {place.name} has is not known"
        return
    old, new = _numbers(built), _numbers(here)
    shared = min(len(old), len(new))
    if old[:shared] == new[:shared]:
        return
    said = f"it was built by {title} {built}, and {place.name} has {here}"
    if not engine.get("version_compatible"):
        yield "will not load", f"{said}, which reads plans of its own version alone; {REBUILD}"
    elif new < old and new[0] < old[0]:
        yield "will not load", f"{said}, which is older; {REBUILD}"
    elif new[0] > old[0]:
        yield "warning", f"{said}: version-compatible plans are promised within {old[0]}.x alone; try it, or {REBUILD}"
    elif target == "tensorrt":
        yield (
            "ok",
            f"{said}: it is version-compatible; Triton needs --backend-config=tensorrt,version-compatible=true",
        )


def _of_gpus(engine: Mapping[str, Any], place: Place) -> _Found:
    """The GPUs against those that the engine was built for."""
    if place.gpus is None:
        yield "warning", f"it was built for {_built_for(engine)}, and the GPU of {place.name} cannot be seen from here"
        return
    if not place.gpus:
        yield "will not load", f"it needs an NVIDIA GPU, and {place.name} has none that `nvidia-smi` shows"
        return
    unfit = []
    for gpu in place.gpus:
        called = f"{gpu.name} (compute capability {gpu.compute_capability or 'not known'})"
        if not gpu.compute_capability:
            yield "warning", f"it was built for {_built_for(engine)}, and {place.name} has {called}"
        elif not _runs_on(engine, gpu.compute_capability):
            unfit.append(called)
        elif engine.get("hardware_compatibility", "none") == "none" and engine.get("gpu") not in (None, gpu.name):
            yield (
                "warning",
                f"it was built on {engine['gpu']} and {place.name} has {called}: it may load and be slow; {REBUILD}",
            )
        built_with, driver = _numbers(str(engine.get("driver") or "")), _numbers(gpu.driver)
        if built_with and driver and driver[0] < built_with[0]:
            yield (
                "warning",
                f"it was built with driver {engine['driver']}, and {gpu.name} has the older {gpu.driver}; "
                "update the driver if it does not load",
            )
    if unfit:
        severity: Severity = "will not load" if len(unfit) == len(place.gpus) else "warning"
        yield severity, f"it was built for {_built_for(engine)}, and {place.name} has {', '.join(unfit)}; {REBUILD}"


def _runs_on(engine: Mapping[str, Any], capability: str) -> bool:
    if engine.get("hardware_compatibility") == "ampere_plus":
        return _numbers(capability) >= (8, 0)
    return capability in (engine.get("compute_capabilities") or [capability])


def _built_for(engine: Mapping[str, Any]) -> str:
    if engine.get("hardware_compatibility") == "ampere_plus":
        return "compute capability 8.0 and above"
    return f"compute capability {', '.join(engine.get('compute_capabilities') or ['not known'])}"


def _of_verification(version: Published) -> _Found:
    if not version.manifest:
        return
    verification = version.manifest.get("verification")
    if not verification:
        yield "warning", "it was never verified; publish it with labelled images to verify it on"
    elif not verification.get("passed"):
        yield "warning", "it failed its verification and was published by force"


def _engine(version: Published) -> Mapping[str, Any]:
    return version.manifest.get("engine") or {}
