"""Score, filter and suppress the raw head [N, 4 + C, A] in NumPy, as tutorials do."""

import numpy as np
import triton_python_backend_utils as pb_utils

SCORE_THRESHOLD, IOU_THRESHOLD, ROWS = 0.25, 0.7, 100


def suppress(boxes, scores):
    kept, order = [], scores.argsort()[::-1]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(best)
        corner = np.maximum(boxes[best, :2], boxes[rest, :2])
        opposite = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        inside = np.clip(opposite - corner, 0, None).prod(1)
        order = rest[inside / (areas[best] + areas[rest] - inside) <= IOU_THRESHOLD]
    return kept


def detect(raw, geometry):
    boxes, scores = raw[:4].T, raw[4:].T
    labels, best = scores.argmax(1), scores.max(1)
    keep = best > SCORE_THRESHOLD
    boxes, labels, best = boxes[keep], labels[keep], best[keep]
    corners = np.hstack([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2])
    kept = suppress(corners + labels[:, None] * 4096, best)[:ROWS]
    scale_x, scale_y, left, top, width, height = geometry
    corners = (corners[kept] - [left, top, left, top]) / [scale_x, scale_y, scale_x, scale_y]
    return corners.clip(0, [width, height, width, height]), best[kept], labels[kept]


class TritonPythonModel:
    def execute(self, requests):
        return [self.respond(request) for request in requests]

    def respond(self, request):
        raws = pb_utils.get_input_tensor_by_name(request, "raw").as_numpy()
        geometries = pb_utils.get_input_tensor_by_name(request, "geometry").as_numpy()
        boxes = np.zeros((len(raws), ROWS, 4), np.float32)
        scores = np.zeros((len(raws), ROWS), np.float32)
        labels = np.zeros((len(raws), ROWS), np.int32)
        count = np.zeros((len(raws), 1), np.int32)
        for row, (raw, geometry) in enumerate(zip(raws, geometries, strict=True)):
            objects = detect(raw, geometry)
            size = count[row, 0] = len(objects[1])
            boxes[row, :size], scores[row, :size], labels[row, :size] = objects
        tensors = (("BOXES", boxes), ("SCORES", scores), ("LABELS", labels), ("COUNT", count))
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in tensors])
