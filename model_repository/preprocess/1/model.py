"""Encoded images to letterboxed pixels."""

import json
from pathlib import Path

import cv2
import numpy as np
import triton_python_backend_utils as pb_utils

from triptych.model_config import read_detector_spec
from triptych.vision.letterbox import preprocess


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.limits = {
            "max_bytes": int(parameters["max_encoded_bytes"]["string_value"]),
            "max_pixels": int(parameters["max_pixels"]["string_value"]),
        }
        cv2.setNumThreads(1)  # instances are the parallelism
        self.spec = read_detector_spec(Path(args["model_repository"]).parent)

    def execute(self, requests):
        return [self.respond(request) for request in requests]

    def respond(self, request):
        images = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy()[:, 0]
        pixels, geometry, errors = preprocess(images, self.spec, **self.limits)
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("pixels", pixels),
                pb_utils.Tensor("geometry", geometry),
                pb_utils.Tensor("ERROR", np.array([[error.encode()] for error in errors], dtype=np.object_)),
            ]
        )
