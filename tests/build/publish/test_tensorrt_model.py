"""The detector's `model.py` on TensorRT, with stand-ins for Triton's module and the runtime."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import triptych_build.publish.targets as templates
from triptych.cuda import DevicePixels


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", ModuleType("pb_utils"))
    path = Path(next(iter(templates.__path__))) / "tensorrt.py"
    spec = importlib.util.spec_from_file_location("model", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.TritonPythonModel()


class Tensor:
    """A tensor as Triton's Python backend has it."""

    def __init__(self, name: str, array: NDArray[Any], *, is_on_gpu: bool = False) -> None:
        self.name, self._array, self._is_on_gpu = name, array, is_on_gpu

    def is_cpu(self) -> bool:
        return not self._is_on_gpu

    def as_numpy(self) -> NDArray[Any]:
        assert not self._is_on_gpu
        return self._array


def test_pixels_on_the_gpu_reach_the_runtime_there(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names = model.execute.__globals__
    backend = SimpleNamespace(
        get_input_tensor_by_name=lambda request, _name: request, Tensor=Tensor, InferenceResponse=lambda made: made[0]
    )
    monkeypatch.setitem(names, "pb_utils", backend)
    here, there = np.zeros((1, 4, 4, 3), np.uint8), DevicePixels(64, (2, 4, 4, 3), None)
    monkeypatch.setitem(names, "pixels_of", lambda tensor: tensor.as_numpy() if tensor.is_cpu() else there)
    model.names, given = 5, []

    def detect_parts(parts: list[Any]) -> NDArray[np.float32]:
        given.extend(parts)
        return np.arange(3, dtype=np.float32).repeat(2 * 6).reshape(3, 2, 6)

    model.runtime = SimpleNamespace(detect_parts=detect_parts)
    answers = model.execute([Tensor("pixels", here), Tensor("pixels", here, is_on_gpu=True)])
    assert given == [here, there]
    assert [answer.as_numpy()[:, 0, 0].tolist() for answer in answers] == [[0], [1, 2]]


def test_an_instance_calculates_on_the_gpu_that_triton_gave_it(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[dict[str, Any]] = []
    monkeypatch.setitem(model.initialize.__globals__, "open_runtime", lambda *_, **options: opened.append(options))
    (tmp_path / "1").mkdir()
    config = {"parameters": {"class_names": {"string_value": '["open"]'}}}
    model.initialize(
        {
            "model_repository": str(tmp_path),
            "model_version": "1",
            "model_config": json.dumps(config),
            "model_instance_device_id": "1",
        }
    )
    assert [options["gpu"] for options in opened] == [1]
