"""The usual detector on a GPU: all waiting requests in one array, copied to the GPU, run, and copied back."""

from pathlib import Path

import numpy as np
import tensorrt as trt
import triton_python_backend_utils as pb_utils
from cuda.bindings import runtime as cuda

LARGEST = 16


class TritonPythonModel:
    def initialize(self, args):
        plan = Path(args["model_repository"]) / args["model_version"] / "model.plan"
        self.logger = trt.Logger(trt.Logger.ERROR)
        self.runtime = trt.Runtime(self.logger)
        self.engine = self.runtime.deserialize_cuda_engine(plan.read_bytes())
        self.context = self.engine.create_execution_context()
        names = [self.engine.get_tensor_name(at) for at in range(self.engine.num_io_tensors)]
        self.input = next(n for n in names if self.engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT)
        self.output = next(n for n in names if n != self.input)
        self.stream = check(cuda.cudaStreamCreate())
        self.result_shape = tuple(self.engine.get_tensor_shape(self.output))[1:]
        image_shape = tuple(self.engine.get_tensor_shape(self.input))[1:]
        self.device_in = check(cuda.cudaMalloc(LARGEST * int(np.prod(image_shape)) * 4))
        self.device_out = check(cuda.cudaMalloc(LARGEST * int(np.prod(self.result_shape)) * 4))
        self.context.set_tensor_address(self.input, int(self.device_in))
        self.context.set_tensor_address(self.output, int(self.device_out))

    def execute(self, requests):
        images = [pb_utils.get_input_tensor_by_name(request, "pixels").as_numpy() for request in requests]
        raw = self.infer(np.concatenate(images))
        parts = np.split(raw, np.cumsum([len(image) for image in images])[:-1])
        return [pb_utils.InferenceResponse([pb_utils.Tensor("raw", part)]) for part in parts]

    def infer(self, images):
        result = np.empty((len(images), *self.result_shape), np.float32)
        kind = cuda.cudaMemcpyKind
        self.context.set_input_shape(self.input, images.shape)
        to_device, to_host = kind.cudaMemcpyHostToDevice, kind.cudaMemcpyDeviceToHost
        check(cuda.cudaMemcpyAsync(self.device_in, images.ctypes.data, images.nbytes, to_device, self.stream))
        assert self.context.execute_async_v3(int(self.stream))
        check(cuda.cudaMemcpyAsync(result.ctypes.data, self.device_out, result.nbytes, to_host, self.stream))
        check(cuda.cudaStreamSynchronize(self.stream))
        return result


def check(result):
    error, *values = result
    assert int(error) == 0, error
    return values[0] if values else None
