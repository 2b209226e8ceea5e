"""What suits a target: an ONNX or a plan, which batches it takes, and who built it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from support.detectors import raw_model, yolox_model
from support.plans import CPU_TARGETS, PLAN_TARGETS, artifact, built_by, plan_file
from triptych.contract import MAX_BATCH
from triptych.errors import BuildError
from triptych_build.adapt.adapter import Overrides, adapt_file
from triptych_build.publish.artifact import check_fit, read_artifact
from triptych_build.publish.publish import publish
from triptych_build.publish.target import InstanceGroup, TargetName
from triptych_build.tensorrt.options import Builder, Profile
from triptych_build.tensorrt.plan import Engine, record_path


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "repository"
    path.mkdir()
    return path


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-python"])
def test_a_plan_is_published_with_its_record(tmp_path: Path, repository: Path, target: TargetName) -> None:
    record = built_by("tensorrt", Profile(1, 4, 16))
    directory = publish(plan_file(tmp_path, record), target, repository, InstanceGroup(1))
    expected = {"config.pbtxt", "manifest.json", "model.plan"} | (
        {"model.py"} if target == "tensorrt-python" else set()
    )
    assert {path.name for path in directory.iterdir()} == expected
    assert (directory / "model.plan").read_bytes() == b"plan"
    manifest = json.loads((directory / "manifest.json").read_text())
    assert (manifest["target"], manifest["precision"]) == (target, "fp16")
    assert manifest["versions"]["tensorrt"] == "10.12.0"
    assert Engine.from_dict(manifest["engine"]) == record


@pytest.mark.parametrize("size", [1, 4, 16])
def test_one_batch_size_alone_is_for_python_only(tmp_path: Path, repository: Path, size: int) -> None:
    plan = plan_file(tmp_path, built_by("tensorrt", Profile(size, size, size)))
    with pytest.raises(BuildError, match=r"takes one batch size alone.*Python target"):
        publish(plan, "tensorrt", repository, InstanceGroup(1))
    assert not (repository / "detector").exists()
    directory = publish(plan, "tensorrt-python", repository, InstanceGroup(1))
    config = text_format.Parse((directory / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert config.max_batch_size == MAX_BATCH, "the Python backend cuts batches up itself"
    assert list(config.input[0].dims) == [480, 640, 3]


GAP = pytest.param([Profile(1, 1, 1), Profile(8, 8, 16)], id="2 to 7 are missing")


@pytest.mark.parametrize(
    "profiles",
    [[Profile(1, 4, 8)], [Profile(2, 8, 16)], [Profile(1, 1, 1), Profile(1, 8, 15)], GAP],
)
def test_a_plan_that_leaves_batches_out_is_for_python_only(
    tmp_path: Path, repository: Path, profiles: list[Profile]
) -> None:
    plan = plan_file(tmp_path, built_by("tensorrt", *profiles))
    with pytest.raises(BuildError, match=r"batches of 1 to 16, but the plan takes .*--profile 1,8,16.*tensorrt-python"):
        publish(plan, "tensorrt", repository, InstanceGroup(1))
    assert publish(plan, "tensorrt-python", repository, InstanceGroup(1)).name == "1"


@pytest.mark.parametrize(
    "profiles",
    [
        [Profile(1, 1, 1), Profile(2, 8, 16)],
        [Profile(1, 1, 4), Profile(1, 16, 32)],
        pytest.param([Profile(4, 8, 16), Profile(1, 1, 3)], id="the small one last"),
    ],
)
def test_profiles_that_cover_all_together_are_taken(tmp_path: Path, repository: Path, profiles: list[Profile]) -> None:
    plan = plan_file(tmp_path, built_by("tensorrt", *profiles))
    assert publish(plan, "tensorrt", repository, InstanceGroup(1)).name == "1"


@pytest.mark.parametrize("target", PLAN_TARGETS)
def test_a_plan_target_takes_no_onnx(tmp_path: Path, repository: Path, target: TargetName) -> None:
    adapt_file(raw_model(tmp_path / "source.onnx"), tmp_path / "adapted.onnx")
    with pytest.raises(BuildError, match=rf"is an ONNX, but the target {target} serves a plan of .*`triptych engine`"):
        publish(tmp_path / "adapted.onnx", target, repository, InstanceGroup(1))


@pytest.mark.parametrize("target", CPU_TARGETS)
def test_an_onnx_target_takes_no_plan(tmp_path: Path, repository: Path, target: TargetName) -> None:
    plan = plan_file(tmp_path, built_by("tensorrt"))
    with pytest.raises(BuildError, match=rf"is a plan of tensorrt, but the target {target} serves an adapted ONNX"):
        publish(plan, target, repository, InstanceGroup(1))


@pytest.mark.parametrize(("builder", "target"), [("tensorrt", "tensorrt-rtx"), ("tensorrt-rtx", "tensorrt")])
def test_a_plan_goes_to_its_builder_s_targets_alone(
    tmp_path: Path, repository: Path, builder: Builder, target: TargetName
) -> None:
    with pytest.raises(BuildError, match=rf"is a plan of {builder}, but the target {target} serves a plan of"):
        publish(plan_file(tmp_path, built_by(builder)), target, repository, InstanceGroup(1))


def test_a_plan_without_its_record_is_refused(tmp_path: Path, repository: Path) -> None:
    plan = plan_file(tmp_path, built_by("tensorrt"))
    record_path(plan).unlink()
    with pytest.raises(BuildError, match=r"has no record model\.plan\.json that can be read"):
        publish(plan, "tensorrt", repository, InstanceGroup(1))


@pytest.mark.parametrize("target", ["onnxruntime", "onnxruntime-python"])
def test_onnx_runtime_takes_no_bf16(target: TargetName) -> None:
    with pytest.raises(BuildError, match="no convolutions in bf16; publish fp16 or fp32"):
        check_fit(artifact(target, precision="bf16"), target)
    check_fit(artifact("openvino", precision="bf16"), "openvino")


def test_a_fixed_onnx_is_for_python_only(tmp_path: Path, repository: Path) -> None:
    adapt_file(yolox_model(tmp_path / "source.onnx"), tmp_path / "fixed.onnx", Overrides(keep_batch=True))
    assert read_artifact(tmp_path / "fixed.onnx").batch == 1
    with pytest.raises(BuildError, match="takes one batch size alone"):
        publish(tmp_path / "fixed.onnx", "onnxruntime", repository, InstanceGroup(1))
    assert publish(tmp_path / "fixed.onnx", "onnxruntime-python", repository, InstanceGroup(1)).name == "1"


def test_a_target_that_is_none() -> None:
    with pytest.raises(BuildError, match="there is no target 'abacus'; choose one of openvino, onnxruntime"):
        check_fit(artifact("openvino"), cast("TargetName", "abacus"))
