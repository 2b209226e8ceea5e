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
from triptych.vision.gpu import open_card
from triptych.vision.gpu.decoder import GpuDecoder, Request
from triptych.vision.letterbox import preprocess


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        limits = {
            "max_bytes": int(parameters["max_encoded_bytes"]["string_value"]),
            "max_pixels": int(parameters["max_pixels"]["string_value"]),
        }
        max_decode_s = float(parameters["max_decode_s"]["string_value"])
        cv2.setNumThreads(1)  # instances are the parallelism
        spec = detector_spec(detector_of_stage(args))
        # An image that is not known to be harmless is decoded in a process that may die.
        self.decoder = DecoderProcess(spec, **limits, max_decode_s=max_decode_s)
        self.observer = PreprocessObserver(pb_utils)
        if parameters["decode"]["string_value"] == "gpu":
            card = open_card(int(args["model_instance_device_id"]), spec)
            self.preprocess = GpuDecoder(card, spec, **limits, on_decoded=self.observer.decoded_on_gpu).preprocess
        else:
            self.preprocess = lambda taken: [
                preprocess(images, spec, **limits, apart=apart, on_fault=on_fault) for images, apart, on_fault in taken
            ]

    def execute(self, requests):
        with time_limit():
            taken = [(request, self.take(request)) for request in requests]
            made = iter(self.preprocess([each for _, each in taken if each]))
            return [self.answer(next(made)) if each else self.refuse(request) for request, each in taken]

    def take(self, request):
        images = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy()
        if images.ndim != 2:  # an exception would fail the other requests of this call as well
            return None
        self.observer.images(images[:, 0])
        on_fault = partial(self.observer.fault, request.request_id())
        return Request(images[:, 0], self.decoder.for_request(), on_fault)

    def refuse(self, request):
        reason = "IMAGE does not hold as many encoded images as its shape says"
        self.observer.refused(request.request_id(), reason)
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(reason, pb_utils.TritonError.INVALID_ARG))

    def answer(self, made):
        errors = np.array([[error.encode()] for error in made.errors], dtype=np.object_)
        on_host = isinstance(made.pixels, np.ndarray)
        return pb_utils.InferenceResponse(
            [
                (pb_utils.Tensor if on_host else pb_utils.Tensor.from_dlpack)("pixels", made.pixels),
                pb_utils.Tensor("geometry", made.geometry),
                pb_utils.Tensor("ERROR", errors),
            ]
        )

    def finalize(self):
        self.observer.close()
        self.decoder.close()
