"""Every `config.pbtxt` parses with Triton's own protobuf and says what `triptych.contract` says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from support import ROOT
from triptych import contract
from triptych.contract import DetectorSpec, Model, Tensor
from triptych.errors import ContractError
from triptych.model_config import (
    detector_of_stage,
    detector_spec,
    read_config,
    read_detector_spec,
    tell_stage,
    version_directory,
)
from triptych_build.adapt.heads import Normalization
from triptych_build.adapt.onnx_file import Adapted
from triptych_build.publish.artifact import Artifact
from triptych_build.publish.config_pbtxt import config_text
from triptych_build.publish.target import InstanceGroup

REPOSITORY = ROOT / "model_repository"
DTYPES = {"BYTES": "TYPE_STRING", "UINT8": "TYPE_UINT8", "INT32": "TYPE_INT32", "FP32": "TYPE_FP32"}


@pytest.fixture(scope="module")
def record() -> Adapted:
    spec = DetectorSpec(640, 480, ("open", 'a "quoted" name', "ünïcode"), placement="top_left", pad_value=0)
    return Adapted("raw", "source.onnx", "0" * 64, 300, Normalization(), spec)


def onnx_of(record: Adapted) -> Artifact:
    return Artifact(Path("adapted.onnx"), record, "fp32")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, record: Adapted) -> Path:
    """The committed configurations, and a generated one next to them."""
    directory = tmp_path_factory.mktemp("repository")
    for path in REPOSITORY.glob("*/config.pbtxt"):
        (directory / path.parent.name).mkdir()
        (directory / path.parent.name / path.name).write_text(path.read_text())
    (directory / "detector").mkdir(exist_ok=True)
    (directory / "detector" / "config.pbtxt").write_text(
        config_text(onnx_of(record), "openvino", InstanceGroup(3, 2), 1)
    )
    return directory


def fits(stated: list[int], promised: tuple[int, ...]) -> bool:
    """A configuration may pin down a size that the contract leaves open, and nothing else."""
    return len(stated) == len(promised) and all(b in (-1, a) for a, b in zip(stated, promised, strict=True))


def tensors(values: Iterable[Any]) -> dict[str, tuple[str, list[int]]]:
    return {value.name: (model_config_pb2.DataType.Name(value.data_type), list(value.dims)) for value in values}


@pytest.mark.parametrize("model", contract.MODELS, ids=lambda model: model.name)
def test_tensors_are_the_contract_s(repository: Path, model: Model) -> None:
    config = read_config(repository / model.name)
    for stated, promised in ((config.input, model.inputs), (config.output, model.outputs)):
        configured = tensors(stated)
        assert set(configured) == {tensor.name for tensor in promised}
        for tensor in promised:
            dtype, dims = configured[tensor.name]
            assert dtype == DTYPES[tensor.dtype]
            assert fits(dims, tensor.shape), (tensor, dims)
    assert config.max_batch_size == contract.MAX_BATCH
    assert config.name == model.name


def test_the_ensemble_wires_every_tensor_of_every_stage(repository: Path) -> None:
    config = read_config(repository / "detection")
    steps = {step.model_name: step for step in config.ensemble_scheduling.step}
    assert tuple(steps) == tuple(stage.name for stage in contract.STAGES)
    for stage in contract.STAGES:

        def names(promised: tuple[Tensor, ...]) -> dict[str, str]:
            return {tensor.name: tensor.name for tensor in promised}

        assert dict(steps[stage.name].input_map) == names(stage.inputs)
        assert dict(steps[stage.name].output_map) == names(stage.outputs)


@pytest.mark.parametrize("model", contract.MODELS, ids=lambda model: model.name)
def test_one_style(repository: Path, model: Model) -> None:
    """A comment says what the model does. The rest is the protobuf as its own printer writes it, with comments."""
    text = (repository / model.name / "config.pbtxt").read_text()
    comment = text.splitlines()[0]
    body = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    config = text_format.Parse(body, model_config_pb2.ModelConfig())
    assert comment.startswith("# ")
    assert body == text_format.MessageToString(config, use_short_repeated_primitives=True)


def test_limits_are_the_contract_s() -> None:
    parameters = read_config(REPOSITORY / "preprocess").parameters
    assert int(parameters["max_encoded_bytes"].string_value) == contract.MAX_ENCODED_BYTES
    assert int(parameters["max_pixels"].string_value) == contract.MAX_PIXELS


def test_the_spec_survives_the_configuration(repository: Path, record: Adapted) -> None:
    assert read_detector_spec(repository) == record.spec
    config = read_config(repository / "detector")
    assert (config.instance_group[0].count, config.parameters["threads"].string_value) == (3, "2")


def args_of(repository: Path, stage: str, config: model_config_pb2.ModelConfig) -> dict[str, str]:
    """What Triton gives a stage's model.py."""
    text = json_format.MessageToJson(
        config, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {"model_repository": str(repository / stage), "model_config": text, "model_version": "1"}


@pytest.mark.parametrize("stage", ["preprocess", "postprocess"])
def test_a_stage_works_with_the_detector_that_is_served(repository: Path, record: Adapted, stage: str) -> None:
    """Whatever the repository's file says by then. In a container nobody passes anything on, and the file is right."""
    config = read_config(repository / stage)
    args = args_of(repository, stage, config)
    assert detector_spec(detector_of_stage(args)) == record.spec
    assert version_directory(args, detector_of_stage(args)) == repository / "detector" / "1"

    served = replace(record, spec=replace(record.spec, score_threshold=0.5, class_names=("cat", '"', "\n", "é")))
    detector = text_format.Parse(
        config_text(onnx_of(served), "openvino", InstanceGroup(1), 5), model_config_pb2.ModelConfig()
    )
    tell_stage(config, detector)
    args = args_of(repository, stage, config)
    assert detector_of_stage(args) == detector
    assert detector_spec(detector_of_stage(args)) == served.spec
    assert version_directory(args, detector_of_stage(args)) == repository / "detector" / "5"


def test_model_files_hold_no_logic_of_their_own() -> None:
    paths = [*REPOSITORY.glob("*/1/model.py"), *(ROOT / "build/triptych_build/publish/targets").glob("*.py")]
    assert len(paths) >= 4
    for path in paths:
        assert len(path.read_text().splitlines()) < 60, f"{path} should unpack, call triptych and pack"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "there is no .*config.pbtxt; publish one with"),
        ("garbage", "is not a model configuration"),
        ("no pixels", "must take one input pixels"),
        ("no names", "has no parameter 'class_names'"),
        ("bad placement", "placement must be one of center, top_left, stretch, but got 'left'"),
        ("bad threshold", r"score_threshold must be a number in 0..1, but got 3.0"),
        ("bad number", "cannot be read"),
    ],
)
def test_a_configuration_that_is_off_is_one_sentence(
    tmp_path: Path, record: Adapted, change: str, message: str
) -> None:
    detector = tmp_path / "detector"
    detector.mkdir()
    text = config_text(onnx_of(record), "openvino", InstanceGroup(1, 1), 1)
    text = {
        "garbage": "surely { not",
        "no pixels": text.replace('"pixels"', '"image"'),
        "no names": text.replace('"class_names"', '"names"'),
        "bad placement": text.replace("top_left", "left"),
        "bad threshold": text.replace('"0.25"', '"3"'),
        "bad number": text.replace('"0.25"', '"a quarter"'),
    }.get(change, text)
    if change != "missing":
        (detector / "config.pbtxt").write_text(text)
    with pytest.raises(ContractError, match=message):
        detector_spec(read_config(detector))


@pytest.mark.parametrize("directory", ["preprocess", "preprocess/3"])
def test_a_model_of_another_name_than_its_directory_is_refused(tmp_path: Path, directory: str) -> None:
    """Triton would not load it from there."""
    path = tmp_path / directory / "config.pbtxt"
    path.parent.mkdir(parents=True)
    for text in ("", 'name: "preprocess"'):
        path.write_text(text)
        assert read_config(path.parent).name == "preprocess"
    path.write_text('name: "other"')
    with pytest.raises(ContractError, match="is of a model called 'other', but lies in the directory of 'preprocess'"):
        read_config(path.parent)
