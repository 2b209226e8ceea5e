"""Decode, letterbox, then float32 CHW in 0..1, as tutorials do."""

import cv2
import numpy as np
import triton_python_backend_utils as pb_utils

SIDE = 640


def prepare(encoded):
    image = cv2.cvtColor(cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    height, width = image.shape[:2]
    scale = min(SIDE / width, SIDE / height)
    new_width, new_height = round(width * scale), round(height * scale)
    if (new_width, new_height) != (width, height):
        image = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    left, top = (SIDE - new_width) // 2, (SIDE - new_height) // 2
    image = cv2.copyMakeBorder(
        image, top, SIDE - new_height - top, left, SIDE - new_width - left, cv2.BORDER_CONSTANT, value=(114, 114, 114)
    )
    tensor = np.ascontiguousarray(image.transpose(2, 0, 1).astype(np.float32) / 255.0)
    return tensor, (new_width / width, new_height / height, left, top, width, height)


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            encoded = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy()[:, 0]
            tensors, geometry = zip(*map(prepare, encoded), strict=True)
            responses.append(
                pb_utils.InferenceResponse(
                    [
                        pb_utils.Tensor("pixels", np.stack(tensors)),
                        pb_utils.Tensor("geometry", np.array(geometry, np.float32)),
                        pb_utils.Tensor("ERROR", np.full((len(encoded), 1), b"", np.object_)),
                    ]
                )
            )
        return responses
