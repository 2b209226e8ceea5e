"""Which cells learn which boxes, and what they are charged: task-aligned assignment, complete IoU, soft-target BCE."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

BOX_WEIGHT = 5.0
SCORE_WEIGHT = 1.0
_SCORE_POWER, _IOU_POWER = 0.5, 6.0
_CELLS_PER_BOX = 10


class Targets(NamedTuple):
    """What each cell should say: boxes [B, A, 4] (xyxy, pixels) and scores [B, A, C] in 0..1, 0 where no box is."""

    boxes_xyxy: Tensor
    scores: Tensor


def xyxy_from_cxcywh(boxes: Tensor) -> Tensor:
    """Turn boxes [B, 4, A] as (cx, cy, w, h) into [B, A, 4] as (x1, y1, x2, y2)."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat([centre - half, centre + half], 1).transpose(1, 2)


def complete_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the complete IoU of boxes [..., 4] (xyxy), element by element with broadcasting (Zheng et al., 2020)."""
    ax1, ay1, ax2, ay2 = a.unbind(-1)
    bx1, by1, bx2, by2 = b.unbind(-1)
    aw, ah, bw, bh = ax2 - ax1, ay2 - ay1, bx2 - bx1, by2 - by1
    width = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    height = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    overlap = width * height
    iou = overlap / (aw * ah + bw * bh - overlap + 1e-7)
    hull_w = torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)
    hull_h = torch.maximum(ay2, by2) - torch.minimum(ay1, by1)
    apart = ((ax1 + ax2 - bx1 - bx2) ** 2 + (ay1 + ay2 - by1 - by2) ** 2) / 4
    shape = (4 / math.pi**2) * (torch.atan(aw / (ah + 1e-7)) - torch.atan(bw / (bh + 1e-7))) ** 2
    with torch.no_grad():
        trade = shape / (1 - iou + shape + 1e-7)
    return iou - apart / (hull_w**2 + hull_h**2 + 1e-7) - trade * shape


def assign(boxes_xyxy: Tensor, scores: Tensor, centres: Tensor, truth: Tensor, labels: Tensor) -> Targets:
    """Give each true box the cells in it that already answer best (task-aligned; Feng et al., 2021).

    Args:
        boxes_xyxy: predicted boxes [B, A, 4].
        scores: predicted scores in 0..1 [B, A, C].
        centres: cell centres [A, 2].
        truth: true boxes [B, M, 4].
        labels: their classes int64 [B, M]; -1 for padding.
    """
    real = labels >= 0
    index = labels.clamp(min=0)
    x, y = centres[:, 0], centres[:, 1]
    within = (x > truth[..., 0:1]) & (x < truth[..., 2:3]) & (y > truth[..., 1:2]) & (y < truth[..., 3:4])
    within &= real[..., None]
    iou = complete_iou(truth[:, :, None], boxes_xyxy[:, None]).clamp(min=0) * within
    own_score = scores.transpose(1, 2).gather(1, index[..., None].expand(-1, -1, scores.shape[1]))
    metric = own_score**_SCORE_POWER * iou**_IOU_POWER * within
    best = metric.topk(_CELLS_PER_BOX, dim=2).indices
    chosen = torch.zeros_like(metric).scatter_(2, best, 1.0).bool() & within
    # A cell that two boxes want goes to the one it overlaps more.
    winner = torch.where(chosen, iou, -1.0).argmax(1)
    chosen &= functional.one_hot(winner, truth.shape[1]).transpose(1, 2).bool()
    taken = chosen.any(1)
    metric = metric * chosen
    peak_metric, peak_iou = metric.amax(2, keepdim=True), (iou * chosen).amax(2, keepdim=True)
    strength = (metric / (peak_metric + 1e-9) * peak_iou).amax(1)
    own = winner[..., None]
    cell_labels = index.gather(1, winner)
    wanted = functional.one_hot(cell_labels, scores.shape[2]) * (strength * taken)[..., None]
    return Targets(truth.gather(1, own.expand(-1, -1, 4)), wanted)


def detection_loss(
    boxes: Tensor, logits: Tensor, centres: Tensor, truth: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Return box and score losses of one batch.

    Args:
        boxes: predicted [B, 4, A] as (cx, cy, w, h) in pixels.
        logits: predicted [B, C, A].
        centres: cell centres [A, 2] in pixels.
        truth: true boxes [B, M, 4] as (x1, y1, x2, y2).
        labels: their classes int64 [B, M]; -1 for padding.
    """
    predicted = xyxy_from_cxcywh(boxes)
    scores = logits.transpose(1, 2)
    with torch.no_grad():
        targets = assign(predicted.detach(), scores.detach().sigmoid(), centres, truth, labels)
    total = targets.scores.sum().clamp(min=1.0)
    score_loss = functional.binary_cross_entropy_with_logits(scores, targets.scores, reduction="sum") / total
    # Cells without a box weigh nothing; dense arithmetic, because picking cells out would stop the compiler.
    weight = targets.scores.sum(2)
    misfit = 1 - complete_iou(predicted, targets.boxes_xyxy)
    return BOX_WEIGHT * (misfit * weight).sum() / total, SCORE_WEIGHT * score_loss
