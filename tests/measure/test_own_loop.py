"""The loop in one process, and how it finds the file that a server serves."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from tritonclient.grpc import model_config_pb2

from triptych.errors import ContractError
from triptych.machine import Gpu
from triptych.measure import own_loop
from triptych.measure.own_loop import OwnLoop, ServedFile
from triptych.model_config import read_config
from triptych.runtimes import open_runtime
from triptych.vision.boxes import postprocess
from triptych.vision.letterbox import preprocess


def test_the_published_file_and_how_it_is_served(demo_repository: Path) -> None:
    served = ServedFile.of(read_config(demo_repository / "detector"), demo_repository)
    assert (served.runtime, served.threads) == ("openvino", 1)
    assert served.path == demo_repository / "detector" / "1" / "model.onnx"
    assert (served.spec.width, served.spec.height) == (640, 640)


def a_config(**fields: str) -> model_config_pb2.ModelConfig:
    config = model_config_pb2.ModelConfig(**fields)
    config.version_policy.specific.versions.append(3)
    config.input.add(name="pixels", data_type="TYPE_UINT8", dims=[640, 640, 3])
    for key, value in {
        "class_names": '["a"]',
        "placement": "center",
        "pad_value": "114",
        "score_threshold": "0.25",
        "iou_threshold": "0.45",
    }.items():
        config.parameters[key].string_value = value
    return config


def put(repository: Path, name: str) -> Path:
    path = repository / "detector" / "3" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_an_onnx_in_triton_s_own_backend(tmp_path: Path) -> None:
    config, path = a_config(backend="onnxruntime"), put(tmp_path, "model.onnx")
    config.parameters["intra_op_thread_count"].string_value = "4"
    served = ServedFile.of(config, tmp_path)
    assert (served.runtime, served.path, served.threads) == ("onnxruntime", path, 4)


@pytest.mark.parametrize("how", [{"platform": "tensorrt_plan"}, {"backend": "python"}])
def test_a_plan(how: dict[str, str], tmp_path: Path) -> None:
    path = put(tmp_path, "model.plan")
    served = ServedFile.of(a_config(**how), tmp_path)
    assert (served.runtime, served.path, served.threads) == ("tensorrt", path, None)


def test_of_several_plans_the_one_of_this_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_loop, "nvidia_gpus", lambda: (Gpu("a GPU", "9.0"),))
    config, path = a_config(platform="tensorrt_plan"), put(tmp_path, "model.plan.9.0")
    config.cc_model_filenames["9.0"] = "model.plan.9.0"
    assert ServedFile.of(config, tmp_path).path == path


def test_a_repository_that_has_not_the_file(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"serves version 3 of the detector, but there is no .*--model-repository"):
        ServedFile.of(a_config(backend="onnxruntime"), tmp_path)


def test_it_detects_what_the_stages_detect(demo_repository: Path) -> None:
    served = ServedFile.of(read_config(demo_repository / "detector"), demo_repository)
    noise = np.random.default_rng(2).integers(0, 256, (300, 500, 3), dtype=np.uint8)
    image = cv2.imencode(".png", noise)[1].tobytes()
    detected, steps = OwnLoop(served, 1).detect(image)

    spec = served.spec
    pixels, geometry, _ = preprocess([image], spec)
    candidates = open_runtime("openvino", served.path, threads=1).detect(pixels)
    expected = postprocess(
        candidates, geometry, score_threshold=spec.score_threshold, iou_threshold=spec.iou_threshold, rows=spec.rows
    )
    for ours, theirs in zip(detected, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert min(steps) > 0
