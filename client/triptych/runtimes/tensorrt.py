"""A TensorRT plan on the GPU through the Python API, for Triton from pip and for machines without a container."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cuda.bindings import runtime as cuda
from numpy.typing import NDArray

from triptych.contract import CANDIDATES, PIXELS
from triptych.runtimes import check_pixels
from triptych.runtimes._batches import in_batches
from triptych.runtimes._inspector import inspect, make_profiler
from triptych.runtimes._layers import Layer, Times, added
from triptych.runtimes._tensorrt import builder_of, engine_of, library, make_logger


class TensorRtRuntime:
    """A plan on a CUDA stream, with a CUDA graph for every batch size that has been used.

    A graph copies the pixels to the GPU, runs the inference and copies the candidates back, so that a call costs one
    launch. A batch larger than the plan's is split, and a smaller one is filled up.
    """

    def __init__(self, model: Path, threads: int, gpu: int = 0) -> None:
        """Open a plan on a GPU, by CUDA's number.

        Raises:
            RuntimeError: TensorRT cannot open it here; the message is TensorRT's.
        """
        del threads  # the GPU has its own
        self._gpu = gpu
        _checked(cuda.cudaSetDevice(gpu))
        trt = library(builder_of(model))
        logger = make_logger(trt)
        runtime = trt.Runtime(logger)
        if engine_of(model).get("version_compatible"):
            runtime.engine_host_code_allowed = True  # such a plan carries the runtime of its own version
        engine = runtime.deserialize_cuda_engine(model.read_bytes())
        if engine is None:
            raise RuntimeError(
                f"TensorRT {trt.__version__}: {logger.last_words() or 'it is not a plan of this version'}"
            )
        self._trt, self._engine, self._logger = trt, engine, logger
        self._stream = _checked(cuda.cudaStreamCreate())
        batch, *shape = engine.get_tensor_shape(PIXELS.name)
        self.input_shape = (int(shape[0]), int(shape[1]), int(shape[2]))
        self._candidates = tuple(int(size) for size in engine.get_tensor_shape(CANDIDATES.name)[1:])
        self._ranges = [
            tuple(int(sizes[0]) for sizes in engine.get_tensor_profile_shape(PIXELS.name, at))
            if batch == -1
            else (int(batch),) * 3
            for at in range(max(1, engine.num_optimization_profiles))
        ]
        self._contexts = [self._context(at) for at in range(len(self._ranges))]
        self._largest = max(largest for _, _, largest in self._ranges)
        self._pixels = _Mirror((self._largest, *self.input_shape), np.uint8)
        self._results = _Mirror((self._largest, *self._candidates), np.float32)
        self._graphs: dict[int, Any] = {}

    def detect(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the candidates, float32 [N, K, 6], of pixels uint8 [N, H, W, 3]."""
        return self.detect_parts([pixels]).copy()

    def detect_parts(self, parts: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the candidates, float32 [N, K, 6], of the images of several requests, uint8 [n, H, W, 3] each.

        Each image is copied once, into the memory that the GPU reads. The candidates are valid until the next call.
        """
        for pixels in parts:
            check_pixels(pixels, self.input_shape)
        _checked(cuda.cudaSetDevice(self._gpu))  # a thread begins with GPU 0
        batches = list(in_batches(parts, self._largest))
        if len(batches) == 1:
            return self._run(batches[0])
        return np.concatenate([self._run(batch).copy() for batch in batches])

    def _run(self, parts: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        count = 0
        for pixels in parts:
            self._pixels.host[count : count + len(pixels)] = pixels
            count += len(pixels)
        self._execute(*self._fit(count))
        candidates: NDArray[np.float32] = self._results.host[:count]
        return candidates

    def _execute(self, profile: int, size: int) -> None:
        """Run one batch size, and wait for the end."""
        if size not in self._graphs:
            self._graphs[size] = self._capture(profile, size)
        _checked(cuda.cudaGraphLaunch(self._graphs[size], self._stream))
        _checked(cuda.cudaStreamSynchronize(self._stream))

    def _fit(self, count: int) -> tuple[int, int]:
        """Return the profile whose best size is nearest to a batch size, and the size that it runs."""
        fitting = [at for at, (_, _, largest) in enumerate(self._ranges) if largest >= count]
        profile = min(fitting, key=lambda at: abs(self._ranges[at][1] - count))
        return profile, max(count, self._ranges[profile][0])

    def _context(self, profile: int) -> Any:
        context = self._engine.create_execution_context()
        if context is None:
            raise RuntimeError(f"TensorRT has no memory for the plan: {self._logger.last_words()}")
        if self._engine.num_optimization_profiles > 1:
            context.set_optimization_profile_async(profile, int(self._stream))
        return context

    def _capture(self, profile: int, size: int) -> Any:
        """Capture one batch size as a CUDA graph, after a plain run that sets up what TensorRT sets up only once."""
        context = self._prepared(profile, size)
        self._enqueue(context, size)
        _checked(cuda.cudaStreamSynchronize(self._stream))
        _checked(cuda.cudaStreamBeginCapture(self._stream, cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal))
        self._enqueue(context, size)
        return _checked(cuda.cudaGraphInstantiate(_checked(cuda.cudaStreamEndCapture(self._stream)), 0))

    def _prepared(self, profile: int, size: int) -> Any:
        """Return the context of a profile, with one batch size and the memory that it works on."""
        context = self._contexts[profile]
        context.set_input_shape(PIXELS.name, (size, *self.input_shape))
        context.set_tensor_address(PIXELS.name, self._pixels.device)
        context.set_tensor_address(CANDIDATES.name, self._results.device)
        return context

    def _enqueue(self, context: Any, size: int) -> None:
        self._pixels.copy(size, self._stream, to_device=True)
        if not context.execute_async_v3(int(self._stream)):
            raise RuntimeError(f"TensorRT could not run a batch of {size}: {self._logger.last_words()}")
        self._results.copy(size, self._stream, to_device=False)


class ProfiledTensorRtRuntime(TensorRtRuntime):
    """The same without CUDA graphs, with TensorRT's own profiler: it is told of each layer after an execution."""

    def __init__(self, model: Path, threads: int, gpu: int = 0) -> None:
        super().__init__(model, threads, gpu)
        self._profiler = make_profiler(self._trt)
        for context in self._contexts:
            context.profiler = self._profiler
            context.enqueue_emits_profile = True
        self._layers: dict[tuple[int, int], dict[str, Layer]] = {}
        self._executions: list[Times] = []

    def start(self) -> None:
        """Begin to measure."""
        self._executions = []

    def times(self) -> Times:
        """Return what was executed since the start."""
        return added(self._executions)

    def _execute(self, profile: int, size: int) -> None:
        context = self._prepared(profile, size)
        if (profile, size) not in self._layers:
            self._layers[profile, size] = {layer.name: layer for layer in inspect(self._trt, self._engine, context)}
        layers = self._layers[profile, size]
        self._profiler.take()
        began = time.perf_counter()
        self._enqueue(context, size)
        _checked(cuda.cudaStreamSynchronize(self._stream))
        ms = (time.perf_counter() - began) * 1000
        times_ms = self._profiler.take()
        # A plan that was built without names has numbers in their place, which the inspector may not list.
        layers_ms = {layers.get(name, Layer(name, "?", "?")): time_ms for name, time_ms in times_ms.items()}
        self._executions.append(Times(ms, layers_ms))


class _Mirror:
    """An array in pinned host memory, and the same amount of memory on the device."""

    def __init__(self, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        count = int(np.prod(shape))
        self._row_bytes = count // shape[0] * np.dtype(dtype).itemsize
        total = self._row_bytes * shape[0]
        self.device = int(_checked(cuda.cudaMalloc(total)))
        self._address = int(_checked(cuda.cudaMallocHost(total)))
        buffer = memoryview((ctypes.c_byte * total).from_address(self._address))
        self.host: NDArray[Any] = np.frombuffer(buffer, dtype=dtype).reshape(shape)

    def copy(self, rows: int, stream: Any, *, to_device: bool) -> None:
        """Start to copy the first rows to the device or back."""
        kind = cuda.cudaMemcpyKind
        if to_device:
            ends, way = (self.device, self._address), kind.cudaMemcpyHostToDevice
        else:
            ends, way = (self._address, self.device), kind.cudaMemcpyDeviceToHost
        _checked(cuda.cudaMemcpyAsync(*ends, rows * self._row_bytes, way, stream))


def _checked(result: tuple[Any, ...]) -> Any:
    """Return the value of a CUDA call.

    Raises:
        RuntimeError: the call failed.
    """
    error, *values = result
    if int(error) != 0:
        _, text = cuda.cudaGetErrorString(error)
        raise RuntimeError(f"CUDA: {text.decode() if isinstance(text, bytes) else text}")
    return values[0] if values else None
