"""Facts for the doctor: deployments and published versions that this machine does not have."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from triptych.machine import Gpu
from triptych.serving.doctor import Deployment, Finding, PublishedVersion, examine

H200 = Gpu("NVIDIA H200", "9.0", "580.65.06")
L4 = Gpu("NVIDIA L4", "8.9", "580.65.06")

SERVER = Deployment("the server at gpu:8001", triton="2.71.0", gpus=(H200,), serving=frozenset({1}))
PIP = Deployment("this machine", is_pip=True, packages={"openvino": "2026.4.1", "tensorrt": "11.1.0.106"}, gpus=(H200,))

ENGINE: dict[str, Any] = {
    "builder": "tensorrt",
    "version": "11.1.0.106",
    "compute_capabilities": ["9.0"],
    "gpu": "NVIDIA H200",
    "driver": "580.65.06",
    "cuda": "13.0",
    "hardware_compatibility": "none",
    "version_compatible": False,
    "profiles": [{"min": 1, "opt": 8, "max": 16}],
    "inputs": [{"name": "pixels", "dtype": "uint8", "shape": [-1, 640, 640, 3]}],
    "outputs": [{"name": "candidates", "dtype": "float32", "shape": [-1, 300, 6]}],
    "plan_bytes": 123,
}

CONFIG = """
    max_batch_size: 16
    version_policy { specific { versions: 1 } }
    dynamic_batching { default_queue_policy { max_queue_size: 512 } }
    input { name: "pixels" data_type: TYPE_UINT8 dims: [640, 640, 3] }
    output { name: "candidates" data_type: TYPE_FP32 dims: [300, 6] }
"""


def config(text: str = CONFIG) -> model_config_pb2.ModelConfig:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def plan(target: str = "tensorrt", **engine: object) -> PublishedVersion:
    """Return a verified version whose plan is what was published, with an engine that differs in `engine`."""
    verification = {"passed": True, "model_sha256": "aa", "gpu": {"name": "NVIDIA H200"}}
    manifest = {"target": target, "model_sha256": "aa", "engine": ENGINE | engine, "verification": verification}
    return PublishedVersion(1, True, manifest, {"model.plan": "aa"}, {"model.plan": 123}, config())


def onnx_model(target: str = "openvino", **manifest: object) -> PublishedVersion:
    """Return a verified version that is an ONNX."""
    adapted = {"candidates": 300, "spec": {"width": 640, "height": 640}}
    whole = {"target": target, "model_sha256": "aa", "adapted": adapted, "verification": {"passed": True}}
    return PublishedVersion(1, True, whole | manifest, {"model.onnx": "aa"}, {"model.onnx": 9}, config())


def refusals(deployment: Deployment, *versions: PublishedVersion) -> list[str]:
    return texts(deployment, *versions, severity="will not load")


def warnings(deployment: Deployment, *versions: PublishedVersion) -> list[str]:
    return texts(deployment, *versions, severity="warning")


def texts(deployment: Deployment, *versions: PublishedVersion, severity: str) -> list[str]:
    return [str(finding) for finding in examine(deployment, versions) if finding.severity == severity]


def find(findings: list[Finding], id: str) -> Finding:  # noqa: A002
    """Return the only finding with this id."""
    (finding,) = [finding for finding in findings if finding.id == id]
    return finding


def pretend_plan(repository: Path) -> None:
    """Make version 1 look as if it were a plan for Triton's TensorRT backend."""
    directory = repository / "detector" / "1"
    (directory / "model.plan").write_bytes(b"ftrt, made up")
    digest = hashlib.sha256(b"ftrt, made up").hexdigest()
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest |= {"target": "tensorrt", "model_sha256": digest, "engine": ENGINE, "verification": {"passed": True}}
    (directory / "manifest.json").write_text(json.dumps(manifest))
