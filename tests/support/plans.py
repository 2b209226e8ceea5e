"""Files that can be published: an adapted ONNX by its record alone, and plans that no GPU was needed for."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from triptych.contract import DetectorSpec
from triptych_build.adapt.heads import Normalization
from triptych_build.adapt.onnx_file import Adapted
from triptych_build.publish.artifact import Artifact
from triptych_build.publish.target import TARGETS, TargetName
from triptych_build.tensorrt.options import Builder, Profile
from triptych_build.tensorrt.plan import Binding, Engine, record_path

SPEC = DetectorSpec(640, 480, ("open", "short"))
ADAPTED = Adapted("raw", "source.onnx", "0" * 64, 300, Normalization(), SPEC)

CPU_TARGETS: list[TargetName] = ["openvino", "onnxruntime", "onnxruntime-python"]
PLAN_TARGETS: list[TargetName] = ["tensorrt", "tensorrt-python", "tensorrt-rtx"]


def built_by(builder: Builder, *profiles: Profile, candidates: int = 300) -> Engine:
    """Return a plan's record. `candidates` may differ from the ONNX's, to show which of them counts."""
    profiles = profiles or (Profile(),)
    batch = profiles[0].max if len(profiles) == 1 and profiles[0].is_fixed else -1
    return Engine(
        builder=builder,
        version="10.12.0",
        precision="fp16",
        compute_capabilities=("9.0",),
        gpu="NVIDIA H200",
        driver="580.65.06",
        cuda=None,
        hardware_compatibility="none",
        version_compatible=False,
        profiles=profiles,
        inputs=(Binding("pixels", "uint8", (batch, 480, 640, 3)),),
        outputs=(Binding("candidates", "float32", (batch, candidates, 6)),),
        plan_bytes=4,
        build_s=1.0,
    )


def artifact(target: TargetName, *profiles: Profile, precision: str = "fp16", candidates: int = 300) -> Artifact:
    """Return a file that suits a target."""
    builder = TARGETS[target].builder
    if builder is None:
        return Artifact(Path("adapted.onnx"), ADAPTED, precision)
    return Artifact(Path("model.plan"), ADAPTED, precision, built_by(builder, *profiles, candidates=candidates))


def plan_file(directory: Path, record: Engine) -> Path:
    """Write a plan's file and its record, as `engine.build` does."""
    path = directory / "model.plan"
    path.write_bytes(b"plan")
    stored = {"adapted": asdict(ADAPTED), "engine": record.to_dict(), "layers": []}
    record_path(path).write_text(json.dumps(stored))
    return path
