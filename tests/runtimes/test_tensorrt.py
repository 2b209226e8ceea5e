"""A plan's profile by stand-ins for TensorRT and CUDA: nothing here needs a GPU, and nothing here was run on one."""

from __future__ import annotations

import ctypes
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from triptych.runtimes import open_runtime
from triptych.runtimes._layers import PROFILED

SIDE, CANDIDATES = 4, 2
LAYERS: list[dict[str, Any]] = [
    {"Name": "Reformatting CopyNode for Input Tensor 0 to /a/Conv", "LayerType": "Reformat"},
    {
        "Name": "/a/Conv + /a/Relu",
        "LayerType": "CaskConvolution",
        "Inputs": [{"Format/Datatype": "Channel major FP16 format where channel % 4 == 0"}],
        "Weights": {"Type": "Half"},
        "TacticName": "sm90_xmma_fprop",
    },
]
TIMES_MS = {LAYERS[0]["Name"]: 0.25, LAYERS[1]["Name"]: 1.0, "7": 0.5}
"""What the profiler is told in each execution, for each image; one layer is not among the inspector's."""


class Context:
    """Tells its profiler the layers' times at each execution, as TensorRT does when `enqueue_emits_profile` is set."""

    def __init__(self) -> None:
        self.profiler: Any = None
        self.enqueue_emits_profile = False
        self.shape: tuple[int, ...] = ()

    def set_input_shape(self, _name: str, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def set_tensor_address(self, _name: str, _address: int) -> None: ...

    def execute_async_v3(self, _stream: int) -> bool:
        if self.profiler and self.enqueue_emits_profile:
            for name, ms in TIMES_MS.items():
                self.profiler.report_layer_time(name, ms * self.shape[0])
        return True


class Engine:
    num_optimization_profiles = 1

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, SIDE, SIDE, 3) if name == "pixels" else (-1, CANDIDATES, 6)

    def get_tensor_profile_shape(self, _name: str, _at: int) -> list[tuple[int, ...]]:
        return [(size, SIDE, SIDE, 3) for size in (1, 2, 2)]

    def create_execution_context(self) -> Context:
        return Context()

    def create_engine_inspector(self) -> Any:
        return SimpleNamespace(get_engine_information=lambda _form: json.dumps({"Layers": LAYERS}))


class Base:
    """Stands for TensorRT's interfaces, which are made of their own constructors."""

    ERROR, INTERNAL_ERROR = 1, 0


class Runtime:
    def __init__(self, _logger: Any) -> None: ...

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        return Engine() if plan == b"plan" else None


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plan, and stand-ins for what opens it."""
    blocks: list[Any] = []  # of memory that must live on

    def allocate(size: int) -> tuple[int, int]:
        blocks.append(ctypes.create_string_buffer(size))
        return 0, ctypes.addressof(blocks[-1])

    cuda: Any = ModuleType("cuda.bindings.runtime")
    cuda.devices = []
    cuda.cudaSetDevice = lambda device: (cuda.devices.append(device) or 0,)
    cuda.cudaStreamCreate = lambda: (0, 1)
    cuda.cudaMalloc = cuda.cudaMallocHost = allocate
    cuda.cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cuda.cudaMemcpyAsync = cuda.cudaStreamSynchronize = lambda *_: (0,)
    bindings: Any = ModuleType("cuda.bindings")
    bindings.runtime = cuda
    tensorrt: Any = ModuleType("tensorrt")
    tensorrt.__spec__ = ModuleSpec("tensorrt", None)
    tensorrt.ILogger = tensorrt.IProfiler = Base
    tensorrt.Runtime, tensorrt.__version__ = Runtime, "8.5.3.1"
    tensorrt.LayerInformationFormat = SimpleNamespace(JSON=1)
    modules = {"cuda": ModuleType("cuda"), "cuda.bindings": bindings, "cuda.bindings.runtime": cuda}
    for name, module in {**modules, "tensorrt": tensorrt}.items():
        monkeypatch.setitem(sys.modules, name, module)
    # Set and removed: so it is imported anew now, and forgotten after the test.
    monkeypatch.setitem(sys.modules, "triptych.runtimes.tensorrt", ModuleType("tensorrt"))
    del sys.modules["triptych.runtimes.tensorrt"]
    (tmp_path / "model.plan").write_bytes(b"plan")
    (tmp_path / "model.plan.json").write_text('{"engine": {"builder": "tensorrt"}}')
    return tmp_path / "model.plan"


def test_the_layers_of_a_plan(plan: Path) -> None:
    runtime: Any = open_runtime("tensorrt", plan, threads=1, runtimes=PROFILED)
    pixels = np.zeros((3, SIDE, SIDE, 3), np.uint8)
    runtime.detect(pixels)
    runtime.start()
    assert runtime.detect(pixels).shape == (3, CANDIDATES, 6)
    times = runtime.times()
    rows = [(layer.kind, layer.precision, layer.kernel, layer.operators, ms) for layer, ms in times.layers_ms.items()]
    assert rows == [
        ("Reformat", "unknown", "", (), 0.75),
        ("CaskConvolution", "fp16", "sm90_xmma_fprop", ("/a/Conv", "/a/Relu"), 3.0),
        ("?", "?", "", (), 1.5),
    ], "three images, in a batch of two and one of one"
    assert times.ms > 0


def test_each_thread_calculates_on_the_gpu_that_was_named(plan: Path) -> None:
    runtime: Any = open_runtime("tensorrt", plan, threads=1, gpu=1, runtimes=PROFILED)
    devices = sys.modules["cuda.bindings.runtime"].devices
    assert devices == [1]
    with ThreadPoolExecutor(1) as pool:
        pool.submit(runtime.detect, np.zeros((1, SIDE, SIDE, 3), np.uint8)).result()
    assert devices == [1, 1], "CUDA begins every thread with GPU 0"
