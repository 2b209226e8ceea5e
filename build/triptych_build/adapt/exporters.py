"""How images are prepared for a detector whose exporter names its family in the metadata.

The shapes of the outputs are the same for many families, and do not tell what the pixels were divided by. libreyolo
writes `model_family` and `size`: what each takes, and how it gives its boxes, is read from its source (1.6).
Paddle2ONNX writes nothing, but nobody else calls outputs as it does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx

from triptych.contract import Placement
from triptych_build.adapt.heads.head import IMAGENET, Boxes, Habits, Normalization, Unit, is_paddle
from triptych_build.adapt.source import metadata

AS_FRACTIONS = Normalization()


@dataclass(frozen=True)
class Preparation:
    """What a family takes its images as, and how it gives its boxes.

    A normalization of None is the head's habit. `boxes` are those of tables of queries or anchors, before suppression;
    with None they are read.
    """

    normalization: Normalization | None = AS_FRACTIONS
    placement: Placement = "stretch"
    pad_value: int = 114
    boxes: tuple[Boxes, Unit] | None = None


IMAGENET_GREY = 116
"""The grey nearest to ImageNet's mean: the border of families that pad with 0 after the normalisation."""

_QUERIES: tuple[Boxes, Unit] = ("centers", "fractions")
_ANCHORS: tuple[Boxes, Unit] = ("corners", "pixels")
_MMDET = Normalization("bgr", 1.0, (103.53, 116.28, 123.675), (57.375, 57.12, 58.395))
_CENTERNET = Normalization("bgr", 1 / 255, (0.408, 0.447, 0.470), (0.289, 0.274, 0.278))
_SSD = Normalization("rgb", 1 / 255, (0.48235, 0.45882, 0.40784), (1 / 255, 1 / 255, 1 / 255))

LIBREYOLO = {
    **dict.fromkeys(("deim", "deimv2", "dfine", "rtdetr", "rtdetrv2", "rtdetrv4"), Preparation(boxes=_QUERIES)),
    **dict.fromkeys(
        ("deformable_detr", "detr", "dinodetr", "ec", "lwdetr", "rfdetr", "tinyformer"),
        Preparation(IMAGENET, boxes=_QUERIES),
    ),
    **dict.fromkeys(("picodet", "ppyoloe"), Preparation(IMAGENET, boxes=_ANCHORS)),
    **dict.fromkeys(("yolo3", "yolo4"), Preparation(placement="top_left", pad_value=128, boxes=_ANCHORS)),
    **dict.fromkeys(("yolo7", "yolo9", "yolo9_e2e", "yolo9_p2"), Preparation(placement="top_left", boxes=_ANCHORS)),
    "centernet": Preparation(_CENTERNET, "center", 0),
    "efficientdet": Preparation(IMAGENET, "top_left", IMAGENET_GREY),
    "rtmdet": Preparation(_MMDET, "top_left", boxes=_ANCHORS),
    "ssd": Preparation(_SSD, boxes=_ANCHORS),
    "yolonas": Preparation(placement="center", boxes=_ANCHORS),
    "yolox": Preparation(Normalization("bgr", 1.0), "top_left"),
}
"""By `model_family`. Those that resize an image to a size of its own (RetinaNet, FCOS, Faster R-CNN) are not here."""

PADDLE = (
    "the outputs' names are PaddleDetection's: images are stretched; unless NormalizeImage in its infer_cfg.yml says "
    "norm_type: none, add --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"
)
"""Its one-stage detectors have images stretched. What is subtracted is in that file alone: 0 for PP-YOLOE+ and RT-DETR,
ImageNet's mean for PicoDet and PP-YOLOE."""

DINO_SIZES = ("s", "m", "l", "x")
"""Sizes of DEIMv2 whose backbone was trained on ImageNet's normalisation; the smaller ones take 0..1."""


def prepared_as(model: onnx.ModelProto) -> tuple[str, Preparation] | None:
    """Return what tells the exporter, in a sentence, and how it prepares images; None if nothing tells it."""
    if any(is_paddle(output.name) for output in model.graph.output):
        return PADDLE, Preparation(normalization=None)
    family = metadata(model, "model_family")
    if not metadata(model, "libreyolo_version") or family not in LIBREYOLO:
        return None
    known = LIBREYOLO[family]
    if family == "deimv2" and metadata(model, "size") in DINO_SIZES:
        known = replace(known, normalization=IMAGENET)
    if family.startswith("yolo9") and metadata(model, "letterbox_pad") == "center":
        known = replace(known, placement="center")
    return f"the metadata names libreyolo's {family}: images are prepared as for that", known


def with_preparation(habits: Habits, known: Preparation) -> Habits:
    """Return a head's habits with the images prepared as its exporter does."""
    normalization = known.normalization or habits.normalization
    return replace(habits, normalization=normalization, placement=known.placement, pad_value=known.pad_value)
