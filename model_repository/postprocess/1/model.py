"""Candidates in letterbox pixels to detections in the original image's pixels."""

import json
from pathlib import Path

import triton_python_backend_utils as pb_utils

from triptych.errors import ContractError
from triptych.model_config import read_detector_spec
from triptych.vision.boxes import postprocess


class TritonPythonModel:
    def initialize(self, args):
        spec = read_detector_spec(Path(args["model_repository"]).parent)
        self.defaults = {"score_threshold": spec.score_threshold, "iou_threshold": spec.iou_threshold}

    def execute(self, requests):
        return [self.respond(request) for request in requests]

    def respond(self, request):
        asked = json.loads(request.parameters())
        thresholds = {name: asked.get(name, default) for name, default in self.defaults.items()}
        candidates = pb_utils.get_input_tensor_by_name(request, "candidates").as_numpy()
        geometry = pb_utils.get_input_tensor_by_name(request, "geometry").as_numpy()
        try:
            boxes, scores, labels, count = postprocess(candidates, geometry, **thresholds)
        except ContractError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG))
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("BOXES", boxes),
                pb_utils.Tensor("SCORES", scores),
                pb_utils.Tensor("LABELS", labels),
                pb_utils.Tensor("COUNT", count),
            ]
        )
