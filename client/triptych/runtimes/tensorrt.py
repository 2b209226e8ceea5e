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
from triptych.cuda import DevicePixels, Pixels, checked
from triptych.runtimes import check_pixels
from triptych.runtimes._batches import in_batches
from triptych.runtimes._inspector import inspect, make_profiler
from triptych.runtimes._layers import Layer, Times, added
from triptych.runtimes._tensorrt import builder_of, engine_of, library, make_logger


class TensorRtRuntime:
    """A plan on a CUDA stream, with a CUDA graph for every batch size that has been used.

    A graph copies the pixels to the GPU, runs the inference and copies the candidates back, so that a call costs one
    launch. Where some pixels are on the GPU already, each part is copied by itself, and the graph does the rest. A
    batch larger than the plan's is split, and a smaller one is filled up.
    """

    def __init__(self, model: Path, threads: int, gpu: int = 0) -> None:
        """Open a plan on a GPU, by CUDA's number.

        Raises:
            RuntimeError: TensorRT cannot open it here; the message is TensorRT's.
        """
        del threads  # the GPU has its own
        self._gpu = gpu
        checked(cuda.cudaSetDevice(gpu))
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
        self._stream = checked(cuda.cudaStreamCreate())
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
        self._graphs: dict[tuple[int, bool], Any] = {}

    def detect(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the candidates, float32 [N, K, 6], of pixels uint8 [N, H, W, 3]."""
        return self.detect_parts([pixels]).copy()

    def detect_parts(self, parts: Sequence[Pixels]) -> NDArray[np.float32]:
        """Return the candidates, float32 [N, K, 6], of the images of several requests, uint8 [n, H, W, 3] each.

        Each image is copied once, into the memory that the GPU reads; those on the GPU stay there. The candidates are
        valid until the next call.
        """
        for pixels in parts:
            check_pixels(pixels, self.input_shape)
        checked(cuda.cudaSetDevice(self._gpu))  # a thread begins with GPU 0
        batches = list(in_batches(parts, self._largest))
        if len(batches) == 1:
            return self._run(batches[0])
        return np.concatenate([self._run(batch).copy() for batch in batches])

    def _run(self, parts: Sequence[Pixels]) -> NDArray[np.float32]:
        count, from_host = 0, not any(isinstance(pixels, DevicePixels) for pixels in parts)
        for pixels in parts:
            rows = slice(count, count + len(pixels))
            if isinstance(pixels, DevicePixels):
                self._pixels.take(rows, pixels.address, self._stream)
            else:
                self._pixels.host[rows] = pixels
                if not from_host:
                    self._pixels.copy(rows, self._stream, to_device=True)
            count += len(pixels)
        self._execute(*self._fit(count), from_host=from_host)
        candidates: NDArray[np.float32] = self._results.host[:count]
        return candidates

    def _execute(self, profile: int, size: int, *, from_host: bool) -> None:
        """Run one batch size, and wait for the end. `from_host`: its pixels are still to be copied to the GPU."""
        if (size, from_host) not in self._graphs:
            self._graphs[size, from_host] = self._capture(profile, size, from_host=from_host)
        checked(cuda.cudaGraphLaunch(self._graphs[size, from_host], self._stream))
        checked(cuda.cudaStreamSynchronize(self._stream))

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

    def _capture(self, profile: int, size: int, *, from_host: bool) -> Any:
        """Capture one batch size as a CUDA graph, after a plain run that sets up what TensorRT sets up only once."""
        context = self._prepared(profile, size)
        self._enqueue(context, size, from_host=from_host)
        checked(cuda.cudaStreamSynchronize(self._stream))
        checked(cuda.cudaStreamBeginCapture(self._stream, cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal))
        self._enqueue(context, size, from_host=from_host)
        return checked(cuda.cudaGraphInstantiate(checked(cuda.cudaStreamEndCapture(self._stream)), 0))

    def _prepared(self, profile: int, size: int) -> Any:
        """Return the context of a profile, with one batch size and the memory that it works on."""
        context = self._contexts[profile]
        context.set_input_shape(PIXELS.name, (size, *self.input_shape))
        context.set_tensor_address(PIXELS.name, self._pixels.device)
        context.set_tensor_address(CANDIDATES.name, self._results.device)
        return context

    def _enqueue(self, context: Any, size: int, *, from_host: bool) -> None:
        if from_host:
            self._pixels.copy(slice(size), self._stream, to_device=True)
        if not context.execute_async_v3(int(self._stream)):
            raise RuntimeError(f"TensorRT could not run a batch of {size}: {self._logger.last_words()}")
        self._results.copy(slice(size), self._stream, to_device=False)


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

    def _execute(self, profile: int, size: int, *, from_host: bool) -> None:
        context = self._prepared(profile, size)
        if (profile, size) not in self._layers:
            self._layers[profile, size] = {layer.name: layer for layer in inspect(self._trt, self._engine, context)}
        layers = self._layers[profile, size]
        self._profiler.take()
        began = time.perf_counter()
        self._enqueue(context, size, from_host=from_host)
        checked(cuda.cudaStreamSynchronize(self._stream))
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
        self.device = int(checked(cuda.cudaMalloc(total)))
        self._address = int(checked(cuda.cudaMallocHost(total)))
        buffer = memoryview((ctypes.c_byte * total).from_address(self._address))
        self.host: NDArray[Any] = np.frombuffer(buffer, dtype=dtype).reshape(shape)

    def copy(self, rows: slice, stream: Any, *, to_device: bool) -> None:
        """Start to copy rows, without a step, to the device or back."""
        kind = cuda.cudaMemcpyKind
        start, size = self._range(rows)
        ends, way = (self._address + start, self.device + start), kind.cudaMemcpyDeviceToHost
        if to_device:
            ends, way = ends[::-1], kind.cudaMemcpyHostToDevice
        checked(cuda.cudaMemcpyAsync(*ends, size, way, stream))

    def take(self, rows: slice, source: int, stream: Any) -> None:
        """Start to copy rows from elsewhere in a GPU's memory."""
        start, size = self._range(rows)
        way = cuda.cudaMemcpyKind.cudaMemcpyDefault  # it may be another GPU's
        checked(cuda.cudaMemcpyAsync(self.device + start, source, size, way, stream))

    def _range(self, rows: slice) -> tuple[int, int]:
        first, stop, _ = rows.indices(len(self.host))
        return first * self._row_bytes, (stop - first) * self._row_bytes
