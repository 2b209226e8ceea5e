"""The `config.pbtxt` of every target, read by Triton's own protobuf: plans are described by their records alone."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from support.detectors import raw_model, yolox_model
from triptych.contract import MAX_BATCH, DetectorSpec
from triptych.errors import BuildError
from triptych.model_config import detector_spec
from triptych_build.adapt import adapter as adapt
from triptych_build.adapt.adapter import Adapted, Normalization, Overrides
from triptych_build.publish import publish
from triptych_build.publish.publish import Artifact, InstanceGroup
from triptych_build.tensorrt.plan import Binding, Engine, Profile, record_path

SPEC = DetectorSpec(640, 480, ("open", "short"))
ADAPTED = Adapted("raw", "source.onnx", "0" * 64, 300, Normalization(), SPEC)

CPU_TARGETS = ["openvino", "onnxruntime", "onnxruntime-python"]
PLAN_TARGETS = ["tensorrt", "tensorrt-python", "tensorrt-rtx"]


def built_by(builder: str, *profiles: Profile, candidates: int = 300) -> Engine:
    """A plan's record. `candidates` may differ from what the ONNX said, to show whose word counts."""
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


def artifact(target: str, *profiles: Profile, precision: str = "fp16", candidates: int = 300) -> Artifact:
    """What suits a target."""
    builder = publish.TARGETS[target].builder
    if builder is None:
        return Artifact(Path("adapted.onnx"), ADAPTED, precision)
    return Artifact(Path("model.plan"), ADAPTED, precision, built_by(builder, *profiles, candidates=candidates))


def config_of(made: Artifact, target: str, group: InstanceGroup | None = None) -> model_config_pb2.ModelConfig:
    text = publish.config_text(made, target, group or InstanceGroup(1), 7)
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def plan_file(directory: Path, record: Engine) -> Path:
    """A plan's file and its record, as `engine.build` leaves them."""
    path = directory / "model.plan"
    path.write_bytes(b"plan")
    stored = {"adapted": asdict(ADAPTED), "engine": record.to_dict(), "layers": []}
    record_path(path).write_text(json.dumps(stored))
    return path


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "repository"
    path.mkdir()
    return path


@pytest.mark.parametrize("target", [*CPU_TARGETS, *PLAN_TARGETS])
def test_what_every_target_says(target: str) -> None:
    config = config_of(artifact(target), target)
    (pixels,), (candidates,) = config.input, config.output
    assert (pixels.name, pixels.data_type, list(pixels.dims)) == ("pixels", model_config_pb2.TYPE_UINT8, [480, 640, 3])
    assert (candidates.name, candidates.data_type) == ("candidates", model_config_pb2.TYPE_FP32)
    assert list(candidates.dims) == [300, 6]
    assert config.max_batch_size == MAX_BATCH
    assert list(config.version_policy.specific.versions) == [7]
    assert detector_spec(config) == SPEC


@pytest.mark.parametrize(
    ("target", "backend", "platform"),
    [
        ("openvino", "python", ""),
        ("onnxruntime", "onnxruntime", ""),
        ("onnxruntime-python", "python", ""),
        ("tensorrt", "", "tensorrt_plan"),
        ("tensorrt-python", "python", ""),
        ("tensorrt-rtx", "python", ""),
    ],
)
def test_who_runs_it(target: str, backend: str, platform: str) -> None:
    config = config_of(artifact(target), target)
    assert (config.backend, config.platform) == (backend, platform)


@pytest.mark.parametrize("target", CPU_TARGETS)
def test_a_cpu_gathers_no_batches_and_splits_its_cores(target: str) -> None:
    config = config_of(artifact(target), target, InstanceGroup(count=3, threads=2))
    (instances,) = config.instance_group
    assert (instances.count, instances.kind, list(instances.gpus)) == (3, instances.KIND_CPU, [])
    assert not config.HasField("dynamic_batching")
    assert not config.optimization.HasField("cuda")
    threads = "intra_op_thread_count" if target == "onnxruntime" else "threads"
    assert config.parameters[threads].string_value == "2"
    assert [(each.batch_size, each.count) for each in config.model_warmup] == [(1, 0)]


@pytest.mark.parametrize(("target", "runtime"), [("openvino", "openvino"), ("onnxruntime-python", "onnxruntime")])
def test_the_python_backend_is_told_its_runtime(target: str, runtime: str) -> None:
    assert config_of(artifact(target), target).parameters["runtime"].string_value == runtime


@pytest.mark.parametrize("target", PLAN_TARGETS)
def test_a_plan_gathers_batches_on_its_gpus(target: str) -> None:
    group = InstanceGroup(count=2, gpus=(0, 3), queue_delay_us=500)
    config = config_of(artifact(target), target, group)
    (instances,) = config.instance_group
    assert (instances.count, instances.kind, list(instances.gpus)) == (2, instances.KIND_GPU, [0, 3])
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.max_queue_delay_microseconds == 500
    assert "threads" not in config.parameters


@pytest.mark.parametrize("target", PLAN_TARGETS)
def test_no_delay_still_gathers_what_waits(target: str) -> None:
    config = config_of(artifact(target), target)
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.max_queue_delay_microseconds == 0


@pytest.mark.parametrize("target", PLAN_TARGETS)
def test_shapes_are_the_plan_s_own(target: str) -> None:
    config = config_of(artifact(target, candidates=123), target)
    assert list(config.output[0].dims) == [123, 6]


@pytest.mark.parametrize("target", PLAN_TARGETS)
def test_warm_up_runs_the_smallest_and_the_largest_batch(target: str) -> None:
    config = config_of(artifact(target), target)
    assert [each.batch_size for each in config.model_warmup] == [1, MAX_BATCH]
    for each in config.model_warmup:
        pixels = each.inputs["pixels"]
        assert set(each.inputs) == {"pixels"}
        assert (pixels.data_type, list(pixels.dims)) == (model_config_pb2.TYPE_UINT8, [480, 640, 3])
        assert pixels.zero_data


def test_batches_are_the_plan_s_largest() -> None:
    config = config_of(artifact("tensorrt", Profile(1, 8, 32)), "tensorrt")
    assert config.max_batch_size == 32
    assert [each.batch_size for each in config.model_warmup] == [1, 32]


def test_cuda_graphs_of_whole_batches() -> None:
    cuda = config_of(artifact("tensorrt"), "tensorrt").optimization.cuda
    assert cuda.graphs
    assert [each.batch_size for each in cuda.graph_spec] == [1, 2, 4, 8, 16]
    assert all(list(each.input["pixels"].dim) == [480, 640, 3] for each in cuda.graph_spec)


@pytest.mark.parametrize("target", ["tensorrt-python", "tensorrt-rtx"])
def test_the_python_backend_captures_its_own_graphs(target: str) -> None:
    assert not config_of(artifact(target), target).optimization.HasField("cuda")


def test_several_profiles_are_all_named() -> None:
    small_and_large = Profile(1, 1, 4), Profile(1, 16, 16)
    config = config_of(artifact("tensorrt", *small_and_large), "tensorrt")
    assert list(config.instance_group[0].profile) == ["0", "1"]
    assert config.max_batch_size == 16
    assert not config_of(artifact("tensorrt"), "tensorrt").instance_group[0].profile
    assert not config_of(artifact("tensorrt-python", *small_and_large), "tensorrt-python").instance_group[0].profile


# --- what suits a target ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-python"])
def test_a_plan_is_published_with_its_record(tmp_path: Path, repository: Path, target: str) -> None:
    record = built_by("tensorrt", Profile(1, 4, 16))
    directory = publish.publish(plan_file(tmp_path, record), target, repository, InstanceGroup(1))
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
        publish.publish(plan, "tensorrt", repository, InstanceGroup(1))
    assert not (repository / "detector").exists()
    directory = publish.publish(plan, "tensorrt-python", repository, InstanceGroup(1))
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
        publish.publish(plan, "tensorrt", repository, InstanceGroup(1))
    assert publish.publish(plan, "tensorrt-python", repository, InstanceGroup(1)).name == "1"


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
    assert publish.publish(plan, "tensorrt", repository, InstanceGroup(1)).name == "1"


@pytest.mark.parametrize("target", PLAN_TARGETS)
def test_a_plan_target_takes_no_onnx(tmp_path: Path, repository: Path, target: str) -> None:
    adapt.adapt_file(raw_model(tmp_path / "source.onnx"), tmp_path / "adapted.onnx", Overrides())
    with pytest.raises(BuildError, match=rf"is an ONNX, but the target {target} serves a plan of .*build/engine.py"):
        publish.publish(tmp_path / "adapted.onnx", target, repository, InstanceGroup(1))


@pytest.mark.parametrize("target", CPU_TARGETS)
def test_an_onnx_target_takes_no_plan(tmp_path: Path, repository: Path, target: str) -> None:
    plan = plan_file(tmp_path, built_by("tensorrt"))
    with pytest.raises(BuildError, match=rf"is a plan of tensorrt, but the target {target} serves an adapted ONNX"):
        publish.publish(plan, target, repository, InstanceGroup(1))


@pytest.mark.parametrize(("builder", "target"), [("tensorrt", "tensorrt-rtx"), ("tensorrt-rtx", "tensorrt")])
def test_a_plan_goes_to_its_builder_s_targets_alone(
    tmp_path: Path, repository: Path, builder: str, target: str
) -> None:
    with pytest.raises(BuildError, match=rf"is a plan of {builder}, but the target {target} serves a plan of"):
        publish.publish(plan_file(tmp_path, built_by(builder)), target, repository, InstanceGroup(1))


def test_a_plan_without_its_record_is_refused(tmp_path: Path, repository: Path) -> None:
    plan = plan_file(tmp_path, built_by("tensorrt"))
    record_path(plan).unlink()
    with pytest.raises(BuildError, match=r"has no record model\.plan\.json that can be read"):
        publish.publish(plan, "tensorrt", repository, InstanceGroup(1))


@pytest.mark.parametrize("target", ["onnxruntime", "onnxruntime-python"])
def test_onnx_runtime_takes_no_bf16(target: str) -> None:
    with pytest.raises(BuildError, match="no convolutions in bf16; publish fp16 or fp32"):
        publish._check_fit(artifact(target, precision="bf16"), target)
    publish._check_fit(artifact("openvino", precision="bf16"), "openvino")


def test_a_fixed_onnx_is_for_python_only(tmp_path: Path, repository: Path) -> None:
    adapt.adapt_file(yolox_model(tmp_path / "source.onnx"), tmp_path / "fixed.onnx", Overrides(keep_batch=True))
    assert publish.read_artifact(tmp_path / "fixed.onnx").batch == 1
    with pytest.raises(BuildError, match="takes one batch size alone"):
        publish.publish(tmp_path / "fixed.onnx", "onnxruntime", repository, InstanceGroup(1))
    assert publish.publish(tmp_path / "fixed.onnx", "onnxruntime-python", repository, InstanceGroup(1)).name == "1"


def test_a_target_that_is_none(repository: Path) -> None:
    with pytest.raises(BuildError, match="there is no target 'abacus'; choose one of openvino, onnxruntime"):
        publish.publish(Path("adapted.onnx"), "abacus", repository, InstanceGroup(1))


def test_a_record_survives_json() -> None:
    record = replace(built_by("tensorrt", Profile(1, 1, 4), Profile(1, 8, 16)), layers={"fp16": 3})
    assert Engine.from_dict(json.loads(json.dumps(record.to_dict()))) == record
