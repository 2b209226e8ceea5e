"""The limits of the queues, in numbers and as Triton reads them, and what the repository's files say."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tritonclient.grpc import model_config_pb2

from support import ROOT
from triptych.contract import DETECTION, POSTPROCESS, PREPROCESS
from triptych.model_config import read_config
from triptych.serving.queues import (
    DEFAULT_BUDGET_MS,
    FILE_CORES,
    MOST_INFLIGHT,
    cores_of,
    fit_queue,
    limit_queue,
    queue_size,
)


@pytest.mark.parametrize(
    ("cores", "budget_ms", "size"),
    [(1, 4000, 16), (2, 4000, 32), (2, 1000, 8), (16, 4000, 256), (1, 100, 1), (1, 1, 1)],
)
def test_more_cores_and_more_time_let_more_requests_wait(cores: int, budget_ms: int, size: int) -> None:
    assert queue_size(cores, budget_ms) == size


def test_a_model_that_gathers_no_batches_gathers_none_with_a_limit() -> None:
    config = model_config_pb2.ModelConfig(name="detector", max_batch_size=16)
    limit_queue(config, 64, 2500)
    policy = config.dynamic_batching.default_queue_policy
    assert list(config.dynamic_batching.preferred_batch_size) == [1]
    assert (policy.timeout_action, policy.allow_timeout_override) == (policy.REJECT, True)
    assert (policy.max_queue_size, policy.default_timeout_microseconds) == (64, 2_500_000)


def test_a_model_that_gathers_batches_goes_on_doing_so() -> None:
    config = model_config_pb2.ModelConfig(name="detector", max_batch_size=16)
    config.dynamic_batching.max_queue_delay_microseconds = 500
    limit_queue(config, 64)
    assert not config.dynamic_batching.preferred_batch_size
    assert config.dynamic_batching.max_queue_delay_microseconds == 500
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 64


def test_a_limit_can_be_changed() -> None:
    config = model_config_pb2.ModelConfig(name="detector")
    limit_queue(config, 64)
    limit_queue(config, 8, 100)
    assert list(config.dynamic_batching.preferred_batch_size) == [1]
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 8


def test_the_files_say_what_two_cores_get() -> None:
    preprocess = read_config(ROOT / "model_repository" / PREPROCESS.name)
    expected = model_config_pb2.ModelConfig()
    limit_queue(expected, queue_size(FILE_CORES), DEFAULT_BUDGET_MS)
    assert preprocess.dynamic_batching == expected.dynamic_batching
    postprocess = read_config(ROOT / "model_repository" / POSTPROCESS.name)
    assert not postprocess.dynamic_batching.HasField("default_queue_policy"), "it has no limit"


@pytest.mark.parametrize(
    ("triton", "knows"),
    [("2.51.0", False), ("2.62.0", False), ("2.63.0", True), ("2.71.0", True), ("3.0.0", True)],
)
def test_requests_at_a_step_are_limited_only_where_triton_knows_how(triton: str, knows: bool, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "model_repository" / DETECTION.name, tmp_path / DETECTION.name)
    file = tmp_path / DETECTION.name / "config.pbtxt"
    before, written = read_config(file.parent), file.read_text()
    command = [sys.executable, "-m", "triptych.serving.queues", str(tmp_path), triton]
    subprocess.run(command, check=True)
    if not knows:
        assert file.read_text() == written
        return
    after = read_config(file.parent)
    assert after.ensemble_scheduling.max_inflight_requests == MOST_INFLIGHT
    after.ensemble_scheduling.ClearField("max_inflight_requests")
    assert after == before


def test_queues_refuse_before_the_limit_of_a_step_makes_anybody_wait() -> None:
    assert max(queue_size(1, on_gpu=True), queue_size(FILE_CORES)) * 2 <= MOST_INFLIGHT


def stage(name: str, size: int = 0, budget_ms: int = DEFAULT_BUDGET_MS) -> model_config_pb2.ModelConfig:
    """A stage of two instances of three threads, on a CPU."""
    config = model_config_pb2.ModelConfig(name=name, max_batch_size=16)
    config.instance_group.add(count=2, kind="KIND_CPU")
    config.parameters["threads"].string_value = "3"
    if size:
        limit_queue(config, size, budget_ms)
    return config


def limits_of(config: model_config_pb2.ModelConfig) -> tuple[int, int]:
    policy = config.dynamic_batching.default_queue_policy
    return policy.max_queue_size, policy.default_timeout_microseconds // 1000


@pytest.mark.parametrize(
    ("config", "budget_ms", "limits"),
    [
        (stage("preprocess", 32), None, (256, 4000)),
        (stage("preprocess", 32), 1000, (64, 1000)),
        (stage("preprocess", 7), None, (7, 4000)),
        (stage("preprocess", 32, 123), None, (32, 123)),
        (stage("preprocess", 7, 123), 1000, (64, 1000)),
        (stage("detector", 96), None, (96, 4000)),
        (stage("detector"), None, (96, 4000)),
        (stage("detector", 64), None, (64, 4000)),
        (stage("postprocess"), None, (0, 0)),
        (stage("postprocess"), 1000, (0, 0)),
    ],
)
def test_a_machine_of_16_cores(
    config: model_config_pb2.ModelConfig, budget_ms: int | None, limits: tuple[int, int]
) -> None:
    fit_queue(config, 16, cores_of(config), budget_ms)
    assert limits_of(config) == limits, "what was written by hand stays, unless a budget is given"


def test_fewer_wait_for_a_detector_that_uses_fewer_cores_than_there_are() -> None:
    config = stage("detector", queue_size(6))
    written_for = cores_of(config)
    config.instance_group[0].count, config.parameters["threads"].string_value = 1, "1"
    fit_queue(config, 2, written_for)
    assert limits_of(config) == (16, 4000)


def test_the_queue_of_a_gpu_knows_no_cores() -> None:
    config = stage("detector")
    config.instance_group[0].kind = model_config_pb2.ModelInstanceGroup.KIND_GPU
    fit_queue(config, 1, cores_of(config))
    assert limits_of(config) == (512, 4000)


@pytest.mark.parametrize(("count", "preferred"), [(1, []), (2, [1])])
def test_a_detector_of_one_process_gets_all_that_wait_at_once(count: int, preferred: list[int]) -> None:
    config = stage("detector", queue_size(6))
    config.backend, config.instance_group[0].count = "python", count
    fit_queue(config, 16, 6)
    assert list(config.dynamic_batching.preferred_batch_size) == preferred


def test_preprocess_never_waits_for_others() -> None:
    config = stage("preprocess", queue_size(FILE_CORES))
    config.backend, config.instance_group[0].count = "python", 1
    fit_queue(config, 1, FILE_CORES)
    assert list(config.dynamic_batching.preferred_batch_size) == [1]
