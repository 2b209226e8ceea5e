"""A plan and its profile by stand-ins for TensorRT and CUDA: nothing here needs a GPU, and nothing was run on one."""

# ruff: noqa: N802, N815  # the stand-in for CUDA has its names

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from triptych.cuda import DevicePixels
from triptych.runtimes import RUNTIMES, RuntimeEntry, open_runtime
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


class Cuda(ModuleType):
    """Does at once what a stream does in its time. A GPU's memory is the host's; a graph is what was captured.

    Attributes:
        devices: the GPUs that were named, in turns.
        copies: the kinds of the copies that were made outside graphs.
    """

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDefault=4)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self) -> None:
        super().__init__("cuda.bindings.runtime")
        self.devices: list[int] = []
        self.copies: list[int] = []
        self._blocks: list[Any] = []  # of memory that must live on
        self._captured: list[Callable[[], object]] | None = None
        self.cudaMalloc = self.cudaMallocHost = self._allocate

    def _allocate(self, size: int) -> tuple[int, int]:
        self._blocks.append(ctypes.create_string_buffer(size))
        return 0, ctypes.addressof(self._blocks[-1])

    def enqueue(self, work: Callable[[], object]) -> None:
        if self._captured is None:
            work()
        else:
            self._captured.append(work)

    def cudaSetDevice(self, device: int) -> tuple[int]:
        self.devices.append(device)
        return (0,)

    def cudaStreamCreate(self) -> tuple[int, int]:
        return 0, 1

    def cudaStreamSynchronize(self, _stream: int) -> tuple[int]:
        return (0,)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, _stream: int) -> tuple[int]:
        if self._captured is None:
            self.copies.append(kind)
        self.enqueue(lambda: ctypes.memmove(to, source, size))
        return (0,)

    def cudaStreamBeginCapture(self, _stream: int, _mode: int) -> tuple[int]:
        self._captured = []
        return (0,)

    def cudaStreamEndCapture(self, _stream: int) -> tuple[int, Any]:
        captured, self._captured = self._captured, None
        return 0, captured

    def cudaGraphInstantiate(self, graph: Any, _flags: int) -> tuple[int, Any]:
        return 0, graph

    def cudaGraphLaunch(self, graph: list[Callable[[], object]], _stream: int) -> tuple[int]:
        for work in graph:
            work()
        return (0,)


class Context:
    """Finds in each image, with a score of 1, a box whose corner is its first pixel.

    It tells its profiler the layers' times at each execution, as TensorRT does when `enqueue_emits_profile` is set.
    """

    def __init__(self) -> None:
        self.profiler: Any = None
        self.enqueue_emits_profile = False
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, _name: str, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def _detect(self) -> None:
        pixels = _array(self.addresses["pixels"], self.shape, np.uint8)
        candidates = _array(self.addresses["candidates"], (self.shape[0], CANDIDATES, 6), np.float32)
        candidates[:] = 1
        candidates[..., 0] = pixels[:, 0, 0, :1]

    def execute_async_v3(self, _stream: int) -> bool:
        sys.modules["cuda.bindings.runtime"].enqueue(self._detect)
        if self.profiler and self.enqueue_emits_profile:
            for name, ms in TIMES_MS.items():
                self.profiler.report_layer_time(name, ms * self.shape[0])
        return True


def _array(address: int, shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
    memory = (ctypes.c_byte * (int(np.prod(shape)) * np.dtype(dtype).itemsize)).from_address(address)
    return np.frombuffer(memoryview(memory), dtype).reshape(shape)


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
    cuda = Cuda()
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


def images(*values: int) -> NDArray[np.uint8]:
    return np.repeat(np.array(values, np.uint8), SIDE * SIDE * 3).reshape(-1, SIDE, SIDE, 3)


def on_gpu(pixels: NDArray[np.uint8]) -> DevicePixels:
    return DevicePixels(pixels.ctypes.data, pixels.shape, pixels)


@pytest.mark.parametrize("runtimes", [RUNTIMES, PROFILED], ids=["graphs", "profiled"])
def test_pixels_on_the_gpu_stay_there(plan: Path, runtimes: Mapping[str, RuntimeEntry]) -> None:
    """Batches of two are cut out of parts here and there; whatever is found tells which image it was found in."""
    runtime: Any = open_runtime("tensorrt", plan, threads=1, runtimes=runtimes)
    for _ in range(2):
        parts = [images(1), on_gpu(images(2)), on_gpu(images(3, 4, 5)), images(6, 7), images(8, 9), on_gpu(images(10))]
        found = runtime.detect_parts(parts)
        np.testing.assert_array_equal(found[:, :, 0], [[value] * CANDIDATES for value in range(1, 11)])
        assert (found[:, :, 1:] == 1).all()
    copies = sys.modules["cuda.bindings.runtime"].copies
    kind = Cuda.cudaMemcpyKind
    assert copies.count(kind.cudaMemcpyDefault) == 2 * 4, "one for each piece of a part on the GPU"


def test_a_batch_without_pixels_on_the_gpu_is_one_launch(plan: Path) -> None:
    runtime: Any = open_runtime("tensorrt", plan, threads=1)
    runtime.detect(images(1, 2))
    copies = sys.modules["cuda.bindings.runtime"].copies
    del copies[:]
    np.testing.assert_array_equal(runtime.detect(images(3, 4))[:, 0, 0], [3, 4])
    assert copies == []
