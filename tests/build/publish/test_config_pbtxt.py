"""The `config.pbtxt` of every target, read by Triton's own protobuf: plans are described by their records alone."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from support.plans import CPU_TARGETS, PLAN_TARGETS, SPEC, artifact
from triptych.contract import MAX_BATCH
from triptych.model_config import detector_spec, names_itself
from triptych.serving.decoding import DEVICE_INPUTS
from triptych.serving.instances import CHOSEN_FOR_CORES
from triptych.serving.queues import queue_size
from triptych_build.publish.artifact import Artifact
from triptych_build.publish.config_pbtxt import config_text
from triptych_build.publish.target import InstanceGroup, TargetName
from triptych_build.tensorrt.options import Profile


def config_of(made: Artifact, target: TargetName, group: InstanceGroup | None = None) -> model_config_pb2.ModelConfig:
    text = config_text(made, target, group or InstanceGroup(1), 7)
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.mark.parametrize("target", [*CPU_TARGETS, *PLAN_TARGETS])
def test_what_every_target_says(target: TargetName) -> None:
    config = config_of(artifact(target), target)
    (pixels,), (candidates,) = config.input, config.output
    assert (pixels.name, pixels.data_type, list(pixels.dims)) == ("pixels", model_config_pb2.TYPE_UINT8, [480, 640, 3])
    assert (candidates.name, candidates.data_type) == ("candidates", model_config_pb2.TYPE_FP32)
    assert list(candidates.dims) == [300, 7 if config.backend == "python" else 6]
    assert names_itself(config) == (config.backend == "python")
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
def test_who_runs_it(target: TargetName, backend: str, platform: str) -> None:
    config = config_of(artifact(target), target)
    assert (config.backend, config.platform) == (backend, platform)


@pytest.mark.parametrize("target", [*CPU_TARGETS, *PLAN_TARGETS])
def test_who_takes_pixels_that_are_on_the_gpu(target: TargetName) -> None:
    """Triton's own backends do so anyway, and the Python backend where it is told."""
    parameters = config_of(artifact(target), target).parameters
    takes = DEVICE_INPUTS in parameters and parameters[DEVICE_INPUTS].string_value == "no"
    assert takes == (target in ("tensorrt-python", "tensorrt-rtx"))


@pytest.mark.parametrize("target", CPU_TARGETS)
def test_a_cpu_gathers_no_batches_and_splits_its_cores(target: TargetName) -> None:
    config = config_of(artifact(target), target, InstanceGroup(count=3, threads=2))
    (instances,) = config.instance_group
    assert (instances.count, instances.kind, list(instances.gpus)) == (3, instances.KIND_CPU, [])
    assert list(config.dynamic_batching.preferred_batch_size) == [1]
    assert config.dynamic_batching.default_queue_policy.max_queue_size == queue_size(6)
    assert not config.optimization.HasField("cuda")
    threads = "intra_op_thread_count" if target == "onnxruntime" else "threads"
    assert config.parameters[threads].string_value == "2"
    assert [(each.batch_size, each.count) for each in config.model_warmup] == [(1, 0)]


@pytest.mark.parametrize(("target", "runtime"), [("openvino", "openvino"), ("onnxruntime-python", "onnxruntime")])
def test_the_python_backend_is_told_its_runtime(target: TargetName, runtime: str) -> None:
    assert config_of(artifact(target), target).parameters["runtime"].string_value == runtime


@pytest.mark.parametrize("target", PLAN_TARGETS)
def test_a_plan_gathers_batches_on_its_gpus(target: TargetName) -> None:
    group = InstanceGroup(count=2, gpus=(0, 3), max_queue_delay_us=500)
    config = config_of(artifact(target), target, group)
    (instances,) = config.instance_group
    assert (instances.count, instances.kind, list(instances.gpus)) == (2, instances.KIND_GPU, [0, 3])
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.max_queue_delay_microseconds == 500
    assert not config.dynamic_batching.preferred_batch_size
    assert config.dynamic_batching.default_queue_policy.max_queue_size == queue_size(1, on_gpu=True)
    assert "threads" not in config.parameters


@pytest.mark.parametrize("target", PLAN_TARGETS)
def test_no_delay_still_gathers_what_waits(target: TargetName) -> None:
    config = config_of(artifact(target), target)
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.max_queue_delay_microseconds == 0


@pytest.mark.parametrize("target", PLAN_TARGETS)
def test_shapes_are_the_plan_s_own(target: TargetName) -> None:
    config = config_of(artifact(target, candidates=123), target)
    assert list(config.output[0].dims) == [123, 6 if target == "tensorrt" else 7]


@pytest.mark.parametrize("target", PLAN_TARGETS)
def test_warm_up_runs_the_smallest_and_the_largest_batch(target: TargetName) -> None:
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
def test_the_python_backend_captures_its_own_graphs(target: TargetName) -> None:
    assert not config_of(artifact(target), target).optimization.HasField("cuda")


def test_several_profiles_are_all_named() -> None:
    small_and_large = Profile(1, 1, 4), Profile(1, 16, 16)
    config = config_of(artifact("tensorrt", *small_and_large), "tensorrt")
    assert list(config.instance_group[0].profile) == ["0", "1"]
    assert config.max_batch_size == 16
    assert not config_of(artifact("tensorrt"), "tensorrt").instance_group[0].profile
    assert not config_of(artifact("tensorrt-python", *small_and_large), "tensorrt-python").instance_group[0].profile


def test_it_says_for_which_cores_the_instances_were_chosen_if_nobody_named_them() -> None:
    parameters = config_of(artifact("openvino"), "openvino", InstanceGroup.for_cores(16)).parameters
    assert (parameters["threads"].string_value, parameters[CHOSEN_FOR_CORES].string_value) == ("2", "16")
    assert CHOSEN_FOR_CORES not in config_of(artifact("openvino"), "openvino", InstanceGroup(8, 2)).parameters
