"""Where JPEGs are decoded: what that changes in a configuration, and what it needs of the machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from support import ROOT
from support.plans import SPEC, artifact
from triptych.contract import STAGES
from triptych.errors import ContractError, ServerStartError
from triptych.machine import Gpu
from triptych.model_config import read_config
from triptych.packages import install_command
from triptych.serving import decoding, fitting, server
from triptych.serving.decoding import check_gpu_decoding, decode_by, decoded_by, pool_options, takes_gpu_pixels
from triptych.serving.fitting import Fitting
from triptych.serving.queues import GPU_IMAGES_S
from triptych.serving.server import TritonServer
from triptych.serving.tuned import Place, Settings, Tuned
from triptych_build.publish.config_pbtxt import config_text
from triptych_build.publish.target import InstanceGroup

GPUS = (Gpu("one"), Gpu("two"))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model repository on a machine of 16 cores, with a detector that runs on its GPUs."""
    monkeypatch.setattr(fitting, "available_cores", lambda: 16)
    monkeypatch.setattr(decoding, "nvidia_gpus", lambda: GPUS)
    directory = tmp_path / "models"
    shutil.copytree(ROOT / "model_repository", directory, ignore=shutil.ignore_patterns("detector", "__pycache__"))
    version = directory / "detector" / "1"
    version.mkdir(parents=True)
    text = config_text(artifact("tensorrt-python"), "tensorrt-python", InstanceGroup(2), 1)
    for place in (version.parent, version):
        (place / "config.pbtxt").write_text(text)
    for model in ("model.py", "model.plan"):
        (version / model).write_bytes(b"")
    return directory


def preprocess_of(repository: Path) -> model_config_pb2.ModelConfig:
    return read_config(repository / "preprocess")


def test_the_file_decodes_on_the_cpu(repository: Path) -> None:
    config = preprocess_of(repository)
    assert decoded_by(config) == "cpu"
    same = preprocess_of(repository)
    decode_by(same, "cpu")
    assert same == config


def test_a_gpu_gathers_requests_and_the_way_back_is_the_file(repository: Path) -> None:
    config = preprocess_of(repository)
    decode_by(config, "gpu")
    (group,) = config.instance_group
    assert (decoded_by(config), group.kind) == ("gpu", group.KIND_GPU)
    assert list(config.dynamic_batching.preferred_batch_size) == []
    decode_by(config, "cpu")
    assert config == preprocess_of(repository)


def test_batches_that_somebody_chose_stay(repository: Path) -> None:
    config = preprocess_of(repository)
    config.dynamic_batching.preferred_batch_size[:] = [4, 8]
    decode_by(config, "gpu")
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 8]


def test_a_preprocess_of_an_older_release_decodes_on_the_cpu_alone(repository: Path) -> None:
    config = preprocess_of(repository)
    del config.parameters[decoding.PARAMETER]
    assert decoded_by(config) == "cpu"
    decode_by(config, "cpu")
    with pytest.raises(ContractError, match=r"older Triptych laid out preprocess.*triptych init"):
        decode_by(config, "gpu")


def test_few_instances_and_a_long_queue(repository: Path) -> None:
    cpu, gpu = Fitting(repository), Fitting(repository, decode="gpu")
    assert cpu.config("preprocess").instance_group[0].count == 12
    assert cpu.pool_options() == []
    config = gpu.config("preprocess")
    assert (config.instance_group[0].count, config.instance_group[0].kind) == (3, 1)
    assert gpu.decisions["preprocess"] == "decided for 16 cores and a GPU that decodes"
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 4 * GPU_IMAGES_S
    assert [fitting.config("postprocess").instance_group[0].count for fitting in (cpu, gpu)] == [4, 6]
    assert not takes_gpu_pixels(cpu.config("detector"))
    assert len(cpu.config("detector").model_warmup) == 2
    assert takes_gpu_pixels(gpu.config("detector"))
    assert not gpu.config("detector").model_warmup, "its pixels come from the host"
    asked = Fitting(repository, {"preprocess": 5}, decode="gpu")
    assert asked.config("preprocess").instance_group[0].count == 5
    assert asked.settings().preprocess == 5


def test_a_detector_that_takes_no_pixels_on_a_gpu_is_refused_before_the_start(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = repository / "detector" / "config.pbtxt"
    config = read_config(path.parent)
    del config.parameters[decoding.DEVICE_INPUTS]
    path.write_text(text_format.MessageToString(config))
    with pytest.raises(
        ContractError, match=r"takes? .*pixels on a GPU; `triptych publish PLAN --target tensorrt-python`"
    ):
        Fitting(repository, decode="gpu").config("detector")
    monkeypatch.setattr(server, "check_gpu_decoding", lambda: None)
    with pytest.raises(ContractError, match="serve with --decode cpu"):
        TritonServer(repository, log_path=repository / "log", decode="gpu").start()


def test_the_file_decides_where_nobody_asks(repository: Path) -> None:
    path = repository / "preprocess" / "config.pbtxt"
    path.write_text(path.read_text().replace('string_value: "cpu"', 'string_value: "gpu"'))
    assert Fitting(repository).decoded_by == "gpu"
    asked = Fitting(repository, decode="cpu")
    assert asked.decoded_by == "cpu"
    assert decoded_by(asked.config("preprocess")) == "cpu"
    path.unlink()
    assert Fitting(repository).decoded_by == "cpu", "another check says that it is missing"


def test_what_was_tuned_on_the_cpu_is_not_applied(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(preprocess=9, detector=4, postprocess=4, threads=None, batch=16, delay_us=0)
    tuned = Tuned(settings, Place("cpu", 16, [], "version 1"), "2026-11-26")
    monkeypatch.setattr(fitting, "read_tuned", lambda _: (tuned, ""))
    assert Fitting(repository).config("preprocess").instance_group[0].count == 9
    gpu = Fitting(repository, decode="gpu")
    assert gpu.config("preprocess").instance_group[0].count == 3
    assert "measured with JPEGs decoded on the CPU" in gpu.remark


def test_each_gpu_gets_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "nvidia_gpus", lambda: GPUS)
    size = 32 * 16 * 640 * 480 * 3
    option = "--cuda-memory-pool-byte-size"
    assert pool_options(SPEC) == [option, f"0:{size}", option, f"1:{size}"]


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "nvidia_gpus", lambda: GPUS)
    command = install_command("gpu-decode")
    assert "nvidia-nvimgcodec-cu12" in command
    monkeypatch.setattr(decoding, "missing_packages", lambda: f"NVRTC is missing; run `{command}`")
    with pytest.raises(ServerStartError) as refused:
        check_gpu_decoding()
    assert str(refused.value) == f"to decode on a GPU, NVRTC is missing; run `{command}`, or serve with --decode cpu"
    monkeypatch.setattr(decoding, "missing_packages", lambda: "")
    check_gpu_decoding()
    monkeypatch.setattr(decoding, "nvidia_gpus", lambda: ())
    with pytest.raises(ServerStartError, match="driver lists none on this machine; serve with --decode cpu"):
        check_gpu_decoding()


def test_a_server_refuses_before_it_starts(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {stage.name for stage in STAGES} < {path.name for path in repository.iterdir()}

    def refuse() -> None:
        raise ServerStartError("no GPU")

    monkeypatch.setattr(server, "check_gpu_decoding", refuse)
    with pytest.raises(ServerStartError, match="no GPU"):
        TritonServer(repository, log_path=repository / "log", decode="gpu").start()
