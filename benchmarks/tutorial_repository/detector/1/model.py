"""The source ONNX as it is, on OpenVINO with the same settings as ours."""

from pathlib import Path

import openvino
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        core = openvino.Core()
        model = core.read_model(Path(args["model_repository"]) / args["model_version"] / "model.onnx")
        model.reshape([1, *(side.get_length() for side in list(model.input().get_partial_shape())[1:])])
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": 1,
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self.request = core.compile_model(model, "CPU", settings).create_infer_request()

    def execute(self, requests):
        responses = []
        for request in requests:
            image = pb_utils.get_input_tensor_by_name(request, "pixels").as_numpy()
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("raw", self.infer(image))]))
        return responses

    def infer(self, image):
        self.request.infer([openvino.Tensor(image, shared_memory=True)], share_inputs=True)
        return self.request.get_output_tensor().data
