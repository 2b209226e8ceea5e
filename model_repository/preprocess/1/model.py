"""Encoded images to letterboxed pixels."""

import cv2
import numpy as np
import triton_python_backend_utils as pb_utils

from triptych.serving.stages.observers import PreprocessObserver
from triptych.serving.stages.preprocessing import Preprocessing
from triptych.serving.stages.time_limit import time_limit


class TritonPythonModel:
    def initialize(self, args):
        cv2.setNumThreads(1)  # instances are the parallelism
        self.observer = PreprocessObserver(pb_utils)
        self.preprocessing = Preprocessing(args, self.observer)

    def execute(self, requests):
        images = [pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy() for request in requests]
        # An exception would fail the other requests of this call as well.
        are_well_formed = [array.ndim == 2 for array in images]
        given = [
            (request.request_id(), array[:, 0])
            for request, array, is_well_formed in zip(requests, images, are_well_formed, strict=True)
            if is_well_formed
        ]
        with time_limit():
            made = iter(self.preprocessing.run(given))
        return [
            self.answer(next(made)) if is_well_formed else self.refuse(request)
            for request, is_well_formed in zip(requests, are_well_formed, strict=True)
        ]

    def answer(self, made):
        on_host = isinstance(made.pixels, np.ndarray)
        return pb_utils.InferenceResponse(
            [
                (pb_utils.Tensor if on_host else pb_utils.Tensor.from_dlpack)("pixels", made.pixels),
                pb_utils.Tensor("geometry", made.geometry),
                pb_utils.Tensor("ERROR", np.array([[error.encode()] for error in made.errors], dtype=np.object_)),
            ]
        )

    def refuse(self, request):
        reason = "IMAGE does not hold as many encoded images as its shape says"
        self.observer.refused(request.request_id(), reason)
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(reason, pb_utils.TritonError.INVALID_ARG))

    def finalize(self):
        self.observer.close()
        self.preprocessing.close()
