"""Preprocess's `model.py` with stand-ins for Triton's module and for a GPU: both ways give the same answers."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from support import ROOT
from support.gpu_card import OnCard, open_stand_in
from support.images import JPEG, PNG
from support.plans import artifact
from triptych.model_config import read_config, tell_stage
from triptych.serving.decoding import PARAMETER
from triptych.vision import gpu
from triptych_build.publish.config_pbtxt import config_text
from triptych_build.publish.target import InstanceGroup

MODEL = ROOT / "model_repository" / "preprocess" / "1" / "model.py"


class Tensor:
    def __init__(self, name: str, array: Any) -> None:
        self.name, self.array = name, array
        self.on_card = False

    @classmethod
    def from_dlpack(cls, name: str, pixels: OnCard) -> Tensor:
        assert isinstance(pixels, OnCard)
        tensor = cls(name, np.from_dlpack(pixels))
        tensor.on_card = True
        return tensor

    def as_numpy(self) -> Any:
        return self.array


class Response:
    def __init__(self, tensors: list[Tensor] | None = None, error: Any = None) -> None:
        self.tensors, self.error = {tensor.name: tensor for tensor in tensors or ()}, error


class Request:
    def __init__(self, *images: bytes) -> None:
        self.array = np.array([[image] for image in images], np.object_)

    def request_id(self) -> str:
        return "7"


class Observer:
    """Counts what it is told."""

    def __init__(self, _backend: Any) -> None:
        self.told: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *given: self.told.append((name, *(len(each) if name == "images" else each for each in given)))


@pytest.fixture
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The model, decoding where the test says."""
    backend: Any = ModuleType("triton_python_backend_utils")
    backend.Tensor, backend.InferenceResponse = Tensor, Response
    backend.TritonError = lambda reason, code: (reason, code)
    backend.TritonError.INVALID_ARG = 3
    backend.get_input_tensor_by_name = lambda request, _name: SimpleNamespace(as_numpy=lambda: request.array)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", backend)
    monkeypatch.setattr(gpu, "open_card", open_stand_in)
    spec = importlib.util.spec_from_file_location("model", MODEL)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PreprocessObserver", Observer)
    config = read_config(MODEL.parents[1])
    config.parameters[PARAMETER].string_value = request.param
    detector = config_text(artifact("openvino"), "openvino", InstanceGroup(1), 1)
    tell_stage(config, text_format.Parse(detector, model_config_pb2.ModelConfig()))
    made = module.TritonPythonModel()
    arguments = json.dumps(json_format.MessageToDict(config, preserving_proto_field_name=True))
    made.initialize({"model_config": arguments, "model_instance_device_id": "0", "model_repository": str(tmp_path)})
    yield made
    made.finalize()


def requests() -> list[Request]:
    uneven = Request()
    uneven.array = np.array([JPEG], np.object_)  # as it comes where the shape says more than there is
    return [Request(JPEG, b"bad"), uneven, Request(PNG), Request(JPEG)]


@pytest.mark.parametrize("model", ["cpu", "gpu"], indirect=True)
def test_every_request_has_its_own_answer(model: Any, request: pytest.FixtureRequest) -> None:
    where = request.node.callspec.params["model"]
    first, refused, second, third = model.execute(requests())
    assert refused.error == ("IMAGE does not hold as many encoded images as its shape says", 3)
    shapes = [response.tensors["pixels"].array.shape for response in (first, second, third)]
    assert shapes == [(2, 480, 640, 3), (1, 480, 640, 3), (1, 480, 640, 3)]
    assert [response.tensors["pixels"].on_card for response in (first, second, third)] == [where == "gpu"] * 3
    good, bad = first.tensors["ERROR"].array[:, 0]
    assert good == b""
    assert b"cannot be read as an image" in bad
    np.testing.assert_array_equal(first.tensors["geometry"].array[1], 0)
    np.testing.assert_array_equal(first.tensors["geometry"].array[0], third.tensors["geometry"].array[0])
    np.testing.assert_array_equal(first.tensors["pixels"].array[0], third.tensors["pixels"].array[0])
    told = model.observer.told
    assert [entry[1] for entry in told if entry[0] == "images"] == [2, 1, 1]
    assert [entry[:3] for entry in told if entry[0] == "fault"] == [("fault", "7", "format")]
    assert [entry[1] for entry in told if entry[0] == "decoded_on_gpu"] == ([2] if where == "gpu" else [])
    assert len([entry for entry in told if entry[0] == "refused"]) == 1
