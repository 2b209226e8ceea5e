"""The precision of each layer, as whoever runs a file says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from support.detectors import c2f_model
from support.graphs import adapted, spec_of
from support.plans import built_by, plan_file
from triptych.machine import has_exact_int8
from triptych.runtimes import openvino
from triptych_build.adapt.onnx_file import read_onnx
from triptych_build.publish.artifact import read_artifact
from triptych_build.publish.layers import Layers, read_layers
from triptych_build.publish.publish import publish
from triptych_build.publish.target import InstanceGroup, TargetName
from triptych_build.quantize.calibrate import Calibration
from triptych_build.quantize.narrow import narrow
from triptych_build.quantize.qdq import quantizable_layers
from triptych_build.quantize.quantizer import post_training
from triptych_build.tensorrt.plan import record_path

ROWS = (
    {"name": "stem", "kind": "Convolution", "precision": "int8"},
    {"name": "sum", "kind": "Eltwise", "precision": "fp32"},
    {"name": "head", "kind": "matrix_multiply", "precision": "fp32"},
)


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapted(c2f_model(tmp_path_factory.mktemp("layers") / "source.onnx"))


@pytest.fixture(scope="module")
def int8(fp32: Path) -> Path:
    """All layers but one."""
    image = fp32.with_name("noise.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(image)
    model = read_onnx(fp32)
    calibration = Calibration((image,), "max", exclude=(quantizable_layers(model)[0],))
    onnx.save(post_training(model, spec_of(fp32), calibration).model, fp32.with_name("int8.onnx"))
    return fp32.with_name("int8.onnx")


def test_layers_with_weights_and_the_rest() -> None:
    layers = Layers("plan", ROWS)
    assert layers.count == 2
    assert layers.outside("int8") == ["head"]
    assert layers.to_dict() == {"from": "plan", "precisions": {"int8": ["stem"], "fp32": ["sum", "head"]}}


@pytest.mark.parametrize("target", ["openvino", "onnxruntime-python"])
def test_int8_of_an_onnx(int8: Path, target: TargetName) -> None:
    layers = read_layers(read_artifact(int8), target)
    assert layers.source == ("openvino" if target == "openvino" else "graph")
    assert layers.count == 17
    if target != "openvino" or has_exact_int8():
        assert layers.outside("int8") == [quantizable_layers(read_onnx(int8.with_name("adapted.onnx")))[0]]


def test_a_cpu_without_int8_instructions_is_told_on(int8: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "has_exact_int8", lambda: False)
    layers = read_layers(read_artifact(int8), "openvino")
    assert len(layers.outside("int8")) == layers.count


def test_fp16_of_an_onnx(fp32: Path) -> None:
    onnx.save(narrow(read_onnx(fp32), "fp16"), fp32.with_name("fp16.onnx"))
    layers = read_layers(read_artifact(fp32.with_name("fp16.onnx")), "onnxruntime")
    assert layers.outside("fp16") == []
    assert {"fp16", "fp32"} == set(layers.to_dict()["precisions"])


def test_the_manifest_has_them_and_how_much_is_int8(tmp_path: Path, int8: Path) -> None:
    directory = publish(int8, "onnxruntime-python", tmp_path, InstanceGroup(1))
    manifest = json.loads((directory / "manifest.json").read_text())
    assert manifest["layers"] == read_layers(read_artifact(int8), "onnxruntime-python").to_dict()
    left = quantizable_layers(read_onnx(int8.with_name("adapted.onnx")))[:1]
    assert manifest["int8"] == {"layers": 16, "of": 17, "left_in_float": left}


def test_a_plan_s_are_in_its_record(tmp_path: Path) -> None:
    path = plan_file(tmp_path, replace(built_by("tensorrt"), precision="int8", layers_from="plan"))
    stored = json.loads(record_path(path).read_text())
    covered = {"layers": 1, "of": 2, "left_in_float": ["head"]}
    record_path(path).write_text(json.dumps(stored | {"layers": ROWS, "int8": covered}))
    (tmp_path / "repository").mkdir()
    directory = publish(path, "tensorrt", tmp_path / "repository", InstanceGroup(1))
    manifest = json.loads((directory / "manifest.json").read_text())
    assert manifest["layers"] == Layers("plan", ROWS).to_dict()
    assert manifest["int8"] == covered
