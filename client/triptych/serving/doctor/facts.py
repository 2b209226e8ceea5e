"""The facts that are compared: a published version of the detector, and the deployment that would load it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tritonclient.grpc import model_config_pb2

from triptych.machine import Gpu

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
    """

    name: str
    triton: str = ""
    is_pip: bool = False
    packages: Mapping[str, str] | None = None
    gpus: tuple[Gpu, ...] | None = None
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    serving: frozenset[int] | None = None

    @property
    def tensorrt(self) -> str:
        """The version of TensorRT in Triton's backend, as far as it is known."""
        return RELEASES.get(minor(self.triton), ("", None))[1] or ""


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
