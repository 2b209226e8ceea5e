"""The detector in Triton's Python backend, on a runtime for the CPU that takes its ONNX."""

import json
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from triptych.contract import names_id
from triptych.files import Hold
from triptych.runtimes import open_runtime
from triptych.serving.stages.time_limit import time_limit
from triptych.vision.stamp import stamp


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        version = Path(args["model_repository"]) / args["model_version"]
        parameters = json.loads(args["model_config"])["parameters"]
        runtime, threads = (parameters[key]["string_value"] for key in ("runtime", "threads"))
        self.names = names_id(json.loads(parameters["class_names"]["string_value"]))
        self.in_use = Hold(version)
        self.runtime = open_runtime(runtime, version / "model.onnx", threads=int(threads))

    def execute(self, requests: list[Any]) -> list[Any]:
        with time_limit():
            return [self.respond(request) for request in requests]

    def respond(self, request: Any) -> Any:
        pixels = pb_utils.get_input_tensor_by_name(request, "pixels").as_numpy()
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("candidates", stamp(self.runtime.detect(pixels), self.names))]
        )
