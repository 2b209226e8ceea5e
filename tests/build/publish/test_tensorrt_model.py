"""The detector's `model.py` on TensorRT, with stand-ins for Triton's module and the runtime."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import triptych_build.publish.targets as templates


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
