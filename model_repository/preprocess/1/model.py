"""Encoded images to letterboxed pixels."""

import json
from functools import partial

import cv2
import numpy as np
import triton_python_backend_utils as pb_utils

from triptych.model_config import detector_of_stage, detector_spec
from triptych.serving.stages.observers import PreprocessObserver
from triptych.serving.stages.time_limit import time_limit
from triptych.vision.decoder_process import DecoderProcess
from triptych.vision.letterbox import preprocess


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.limits = {
            "max_bytes": int(parameters["max_encoded_bytes"]["string_value"]),
            "max_pixels": int(parameters["max_pixels"]["string_value"]),
        }
        max_decode_s = float(parameters["max_decode_s"]["string_value"])
        cv2.setNumThreads(1)  # instances are the parallelism
        self.spec = detector_spec(detector_of_stage(args))
        # An image that is not known to be harmless is decoded in a process that may die.
        self.decoder = DecoderProcess(self.spec, **self.limits, max_decode_s=max_decode_s)
        self.observer = PreprocessObserver(pb_utils)

    def execute(self, requests):
        with time_limit():
            return [self.respond(request) for request in requests]

    def respond(self, request):
        images = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy()
        if images.ndim != 2:  # an exception would fail the other requests of this call as well
            reason = "IMAGE does not hold as many encoded images as its shape says"
            self.observer.refused(request.request_id(), reason)
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(reason, pb_utils.TritonError.INVALID_ARG))
        self.observer.images(images[:, 0])
        on_fault = partial(self.observer.fault, request.request_id())
        apart = self.decoder.for_request()
        pixels, geometry, errors = preprocess(images[:, 0], self.spec, **self.limits, apart=apart, on_fault=on_fault)
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("pixels", pixels),
                pb_utils.Tensor("geometry", geometry),
                pb_utils.Tensor("ERROR", np.array([[error.encode()] for error in errors], dtype=np.object_)),
            ]
        )

    def finalize(self):
        self.observer.close()
        self.decoder.close()
