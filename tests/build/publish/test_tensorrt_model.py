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


class Runtime:
    """Says in its candidates which image of a call each is, and notes what it was given."""

    input_shape = (4, 4, 3)

    def __init__(self) -> None:
        self.given: list[Any] = []

    def detect_parts(self, parts: list[Any]) -> NDArray[np.float32]:
        self.given.append(list(parts))
        count = sum(map(len, parts))
        return np.arange(count, dtype=np.float32).repeat(2 * 6).reshape(count, 2, 6)

    def detect(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.detect_parts([pixels])


HERE, THERE = np.zeros((1, 4, 4, 3), np.uint8), DevicePixels(64, (2, 4, 4, 3), None)


@pytest.fixture
def runtime(model: Any, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """The runtime of a model whose Triton is a stand-in."""
    names, runtime = model.execute.__globals__, Runtime()
    backend = SimpleNamespace(
        get_input_tensor_by_name=lambda request, _name: request,
        Tensor=Tensor,
        InferenceResponse=lambda made=None, error=None: error or made[0],
        TritonError=type(
            "TritonError", (tuple,), {"UNAVAILABLE": 14, "__new__": lambda cls, *of: tuple.__new__(cls, of)}
        ),
    )
    monkeypatch.setitem(names, "pb_utils", backend)
    monkeypatch.setitem(names, "pixels_of", lambda tensor: tensor.as_numpy() if tensor.is_cpu() else THERE)
    monkeypatch.setitem(names, "open_runtime", lambda *_, **__: runtime)
    return runtime


def initialize(model: Any, directory: Path, **parameters: str) -> None:
    (directory / "1").mkdir()
    given = {"class_names": '["open"]', **parameters}
    config = {"parameters": {key: {"string_value": value} for key, value in given.items()}}
    model.initialize(
        {
            "model_repository": str(directory),
            "model_version": "1",
            "model_config": json.dumps(config),
            "model_instance_device_id": "1",
        }
    )


def test_pixels_on_the_gpu_reach_the_runtime_there(model: Any, runtime: Runtime, tmp_path: Path) -> None:
    initialize(model, tmp_path)
    answers = model.execute([Tensor("pixels", HERE), Tensor("pixels", HERE, is_on_gpu=True)])
    assert runtime.given == [[HERE, THERE]]
    assert [answer.as_numpy()[:, 0, 0].tolist() for answer in answers] == [[0], [1, 2]]


def test_pixels_that_a_full_pool_may_have_damaged_are_refused(model: Any, runtime: Runtime, tmp_path: Path) -> None:
    initialize(model, tmp_path, pixels_from="gpu")
    assert [len(pixels) for (pixels,) in runtime.given] == [1, 16], "Triton's warm-up would be refused too"
    runtime.given.clear()
    on_gpu, on_host = Tensor("pixels", HERE, is_on_gpu=True), Tensor("pixels", HERE)
    first, refused, last = model.execute([on_gpu, on_host, on_gpu])
    assert runtime.given == [[THERE, THERE]]
    assert [answer.as_numpy()[:, 0, 0].tolist() for answer in (first, last)] == [[0, 1], [2, 3]]
    reason, code = refused
    assert code == 14
    assert "pool of GPU memory was full" in reason, "what the client goes by"
    assert model.execute([on_host]) == [refused]


def test_an_instance_calculates_on_the_gpu_that_triton_gave_it(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[dict[str, Any]] = []
    monkeypatch.setitem(model.initialize.__globals__, "open_runtime", lambda *_, **options: opened.append(options))
    initialize(model, tmp_path)
    assert [options["gpu"] for options in opened] == [1]
