"""The facts that are compared: a published version of the detector, and the deployment that would load it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tritonclient.grpc import model_config_pb2

from triptych.machine import Gpu

RELEASES: dict[str, tuple[str, str | None]] = {
    "2.51": ("24.10", None),
    "2.62": ("25.10", "10.13.3"),
    "2.63": ("25.11", "10.14"),
    "2.64": ("25.12", "10.14.1"),
    "2.65": ("26.01", None),
    "2.66": ("26.02", "10.15.1"),
    "2.67": ("26.03", "10.16.0.72"),
    "2.68": ("26.04", "10.16.1"),
    "2.69": ("26.05", "10.16.1.11"),
    "2.70": ("26.06", "11.0"),
    "2.71": ("26.07", "11.1.0.106"),
    "2.72": ("26.08", "11.2.1"),
    "2.73": ("26.09", "11.3"),
}
"""Container and TensorRT by release of Triton, of the standard image, as far as they are known in 2026-11.

Four numbers are a full build; of fewer, the rest is not known. Other images of a release may have another TensorRT:
26.07-trtllm-python-py3 has 10.14.1.48.
"""

BULLETINS = (
    (
        "25.07",
        "August 2025 on the HTTP server and the Python backend "
        "(CVE-2025-23310, -23311, -23319, -23320 and -23334; fixed in 25.07)",
    ),
    ("25.08", "September 2025 on the Python backend's model control (CVE-2025-23316; fixed in 25.08)"),
    (
        "26.07",
        "later, such as May 2026 on ways around authentication (CVE-2026-24206 and -24207; in which release each was "
        "fixed is not known here)",
    ),
)
"""NVIDIA's security bulletins for Triton, each with the first container for which none of it is known to be open."""

MODEL_FILES = {
    "openvino": "model.onnx",
    "onnxruntime": "model.onnx",
    "onnxruntime-python": "model.onnx",
    "tensorrt": "model.plan",
    "tensorrt-python": "model.plan",
    "tensorrt-rtx": "model.plan",
}
"""The detector's file by target."""


@dataclass(frozen=True)
class Deployment:
    """What would load the versions: this machine, this container, or a running server.

    Attributes:
        name: what to call it in a sentence.
        triton: the version of Triton, such as "2.70.0"; empty if it is not known.
        is_pip: whether it is Triton from pip, which has only the Python backend.
        packages: versions of the runtimes' Python packages, by runtime; None if they cannot be seen.
        gpus: the GPUs; None if they cannot be seen.
        errors: what else keeps it from serving, in sentences.
        warnings: what else may keep it from serving, in sentences.
        serving: the versions of the detector that it serves now; None if it is not a running server.
        trt_version: the TensorRT that the container itself says it has; empty if it does not.
    """

    name: str
    triton: str = ""
    is_pip: bool = False
    packages: Mapping[str, str] | None = None
    gpus: tuple[Gpu, ...] | None = None
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    serving: frozenset[int] | None = None
    trt_version: str = ""

    @property
    def container(self) -> str:
        """The container that the release of Triton came in; empty if it is not known."""
        return RELEASES.get(minor(self.triton), ("", None))[0]

    @property
    def tensorrt(self) -> str:
        """The version of TensorRT in Triton's backend, as far as it is known."""
        return self.trt_version or RELEASES.get(minor(self.triton), ("", None))[1] or ""

    @property
    def bulletins(self) -> tuple[str, ...]:
        """NVIDIA's bulletins that the release of Triton leaves open, or may leave open."""
        return tuple(text for fixed, text in BULLETINS if self.container and self.container < fixed)


@dataclass(frozen=True)
class PublishedVersion:
    """A version of the detector.

    Attributes:
        number: its number.
        is_served: whether the repository serves it.
        manifest: its manifest; empty if it has none that can be read.
        sha256: hashes of the model files that are there, by name.
        sizes: their sizes in bytes, by name.
        config: its configuration, or None.
        config_error: why there is no configuration, in a sentence.
        place: of several plans, the compute capability whose plan this is about; empty for the first, or the only one.
    """

    number: int
    is_served: bool
    manifest: Mapping[str, Any] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    config: model_config_pb2.ModelConfig | None = None
    config_error: str = ""
    place: str = ""

    @property
    def subject(self) -> str:
        """What to call it in a finding."""
        plan = f", plan for {self.place}" if self.place else ""
        return f"version {self.number}{' (served)' if self.is_served else ''}{plan}"

    @property
    def target(self) -> str:
        """What it was published for."""
        return str(self.manifest.get("target"))

    @property
    def engine(self) -> Mapping[str, Any]:
        """What the manifest says of its engine; empty if it has none."""
        return self.manifest.get("engine") or {}

    @property
    def verification(self) -> Mapping[str, Any]:
        """What the gate said of it; empty if it was not asked."""
        return self.manifest.get("verification") or {}

    @property
    def plans(self) -> Mapping[str, Any]:
        """What the manifest says of its plans for other compute capabilities, by these."""
        return self.manifest.get("plans") or {}

    @property
    def filename(self) -> str:
        """What its model's file is called; empty if its target is not known."""
        usual = MODEL_FILES.get(self.target, "")
        return f"{usual}.{self.place}" if self.place else usual


def minor(version: str) -> str:
    """Return the first two parts of a version."""
    return ".".join(version.split(".")[:2])


def tensorrt_command(version: str) -> str:
    """Return what installs the TensorRT that builds plans for a version: the newest of pip is in no container."""
    exact = version if version.count(".") >= 3 else f"{version}.*"
    return shlex.join(["pip", "install", f"tensorrt=={exact}"])
