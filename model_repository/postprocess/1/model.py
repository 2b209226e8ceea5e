"""Candidates in letterbox pixels to detections in the original image's pixels."""

import json

import triton_python_backend_utils as pb_utils

from triptych.contract import names_id
from triptych.errors import ContractError
from triptych.files import Hold
from triptych.model_config import detector_of_stage, detector_spec, version_directory
from triptych.serving.stages.observers import PostprocessObserver
from triptych.serving.stages.time_limit import time_limit
from triptych.vision.boxes import postprocess
from triptych.vision.stamp import read_stamp


class TritonPythonModel:
    def initialize(self, args):
        config = detector_of_stage(args)
        version = version_directory(args, config)
        self.in_use = Hold(version)
        spec = detector_spec(config)
        self.names = names_id(spec.class_names)
        self.defaults = {"score_threshold": spec.score_threshold, "iou_threshold": spec.iou_threshold}
        self.rows = spec.rows
        self.observer = PostprocessObserver(pb_utils, spec, version)

    def execute(self, requests):
        with time_limit():
            return [self.respond(request) for request in requests]

    def respond(self, request):
        asked = json.loads(request.parameters())
        thresholds = {name: asked.get(name, default) for name, default in self.defaults.items()}
        candidates = pb_utils.get_input_tensor_by_name(request, "candidates").as_numpy()
        candidates, names = read_stamp(candidates, self.names)
        geometry = pb_utils.get_input_tensor_by_name(request, "geometry").as_numpy()
        try:
            detected = postprocess(candidates, geometry, **thresholds, rows=self.rows)
        except ContractError as error:
            self.observer.refused(request.request_id(), str(error))
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG))
        self.observer.answers(detected, names[:, 0].tolist())
        boxes, scores, labels, count, truncated = detected
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("BOXES", boxes),
                pb_utils.Tensor("SCORES", scores),
                pb_utils.Tensor("LABELS", labels),
                pb_utils.Tensor("COUNT", count),
                pb_utils.Tensor("TRUNCATED", truncated),
                pb_utils.Tensor("NAMES", names),
            ]
        )

    def finalize(self):
        self.observer.close()
