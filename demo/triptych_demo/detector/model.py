"""A compact detector of convolutions and ReLU alone, with the raw head of YOLOv8's export.

Input `images` float32 [N, 3, 640, 640], RGB in 0 to 1; output `output0` float32 [N, 4 + C, 8400]: centre x,
centre y, width and height in input pixels, then one score in 0 to 1 for each class, for every cell of the grids
of stride 8, 16 and 32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STRIDES = (8, 16, 32)
IMAGE_SIZE = 640
MAX_SIDE_CELLS = 16.0
"""Largest box side that a cell can predict, in strides: 128 pixels on the finest grid."""


class ConvRelu(nn.Module):  # type: ignore[misc]
    """Convolution, batch normalisation (until `fuse`), ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))

    def fuse(self) -> None:
        """Fold the normalisation into the convolution; only for inference."""
        norm = self.norm
        if not isinstance(norm, nn.BatchNorm2d):
            return
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        self.conv.weight.data = self.conv.weight.data * scale.data[:, None, None, None]
        self.conv.bias = nn.Parameter((norm.bias - norm.running_mean * scale).data)
        self.norm = nn.Identity()


class Bottleneck(nn.Module):  # type: ignore[misc]
    """Two 3x3 convolutions with a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(ConvRelu(channels, channels), ConvRelu(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Stage(nn.Module):  # type: ignore[misc]
    """Cross-stage partial block: half of the channels pass `depth` bottlenecks, the others pass by."""

    def __init__(self, inputs: int, outputs: int, depth: int) -> None:
        super().__init__()
        half = outputs // 2
        self.through = ConvRelu(inputs, half, 1)
        self.beside = ConvRelu(inputs, half, 1)
        self.blocks = nn.Sequential(*(Bottleneck(half) for _ in range(depth)))
        self.join = ConvRelu(outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(torch.cat([self.blocks(self.through(x)), self.beside(x)], 1))


class PyramidPool(nn.Module):  # type: ignore[misc]
    """Three 9x9 maxima in a row, next to the input: every cell of the 20x20 grid sees the whole picture.

    Pads, drill holes and line ends show which grey is copper, and they can be far from a defect. An open in white
    lines looks like a short between black ones.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.reduce = ConvRelu(channels, half, 1)
        self.pool = nn.MaxPool2d(9, 1, 4)
        self.join = ConvRelu(4 * half, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.reduce(x)]
        for _ in range(3):
            levels.append(self.pool(levels[-1]))
        return self.join(torch.cat(levels, 1))


class Head(nn.Module):  # type: ignore[misc]
    """Box and class branches of one grid: [N, inputs, H, W] to raw boxes [N, 4, HW] and logits [N, C, HW]."""

    def __init__(self, inputs: int, width: int, classes: int, cells: int) -> None:
        super().__init__()
        self.classes, self.cells = classes, cells
        self.box = nn.Sequential(ConvRelu(inputs, width), ConvRelu(width, width), nn.Conv2d(width, 4, 1))
        self.score = nn.Sequential(ConvRelu(inputs, width), nn.Conv2d(width, classes, 1))
        box_bias, score_bias = self.box[-1].bias, self.score[-1].bias
        # Begin with boxes of about a quarter of the largest side and with rare objects.
        nn.init.constant_(box_bias[2:], -1.1)
        nn.init.constant_(score_bias, -5.5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # Constant shapes but for the batch: flatten(2) would leave shape arithmetic in the exported graph.
        return self.box(x).reshape(-1, 4, self.cells), self.score(x).reshape(-1, self.classes, self.cells)


class Detector(nn.Module):  # type: ignore[misc]
    """The network: backbone to stride 32, top-down and bottom-up neck, three heads.

    forward: float [N, 3, 640, 640] in 0..1 to boxes float32 [N, 4, 8400] (cx, cy, w, h in pixels) and class
    logits float32 [N, C, 8400].
    """

    centres: Tensor
    strides: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvRelu(3, 16, 3, 2), ConvRelu(16, 32, 3, 2), Stage(32, 32, 1))
        self.down8 = nn.Sequential(ConvRelu(32, 64, 3, 2), Stage(64, 64, 2))
        self.down16 = nn.Sequential(ConvRelu(64, 96, 3, 2), Stage(96, 96, 2))
        self.down32 = nn.Sequential(ConvRelu(96, 160, 3, 2), Stage(160, 160, 1), PyramidPool(160))
        self.up = nn.Upsample(scale_factor=2.0, mode="nearest")
        self.top16 = Stage(160 + 96, 96, 1)
        self.top8 = Stage(96 + 64, 64, 1)
        self.fine_to_mid = ConvRelu(64, 64, 3, 2)
        self.mid16 = Stage(64 + 96, 96, 1)
        self.mid_to_coarse = ConvRelu(96, 96, 3, 2)
        self.coarse32 = Stage(96 + 160, 128, 1)
        sizes = zip((64, 96, 128), (40, 48, 48), STRIDES, strict=True)
        self.heads = nn.ModuleList(
            Head(inputs, width, classes, (IMAGE_SIZE // stride) ** 2) for inputs, width, stride in sizes
        )
        centres, strides = _cells()
        self.register_buffer("centres", centres, persistent=False)
        self.register_buffer("strides", strides, persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        at8 = self.down8(self.stem(images))
        at16 = self.down16(at8)
        at32 = self.down32(at16)
        top16 = self.top16(torch.cat([self.up(at32), at16], 1))
        fine = self.top8(torch.cat([self.up(top16), at8], 1))
        mid = self.mid16(torch.cat([self.fine_to_mid(fine), top16], 1))
        coarse = self.coarse32(torch.cat([self.mid_to_coarse(mid), at32], 1))
        raw = [head(level) for head, level in zip(self.heads, (fine, mid, coarse), strict=True)]
        boxes = torch.cat([box for box, _ in raw], 2)
        logits = torch.cat([score for _, score in raw], 2)
        if boxes.dtype != torch.float32:
            # Under autocast; pixels in bfloat16 would be off by several. A cast without need would stay in the ONNX.
            boxes, logits = boxes.float(), logits.float()
        centre = boxes[:, :2] * self.strides + self.centres
        side = boxes[:, 2:].sigmoid() * (self.strides * MAX_SIDE_CELLS)
        return torch.cat([centre, side], 1), logits

    def fuse(self) -> Detector:
        """Fold every normalisation away, for export; in place."""
        for module in self.modules():
            if isinstance(module, ConvRelu):
                module.fuse()
        return self


class Exported(nn.Module):  # type: ignore[misc]
    """The detector with its two outputs as one tensor: float32 [N, 4 + C, 8400], scores through a sigmoid."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> Tensor:
        boxes, logits = self.detector(images)
        return torch.cat([boxes, logits.sigmoid()], 1)


def _cells() -> tuple[Tensor, Tensor]:
    """Return cell centres float32 [1, 2, A] and strides float32 [1, 1, A], in pixels, finest grid first, row by row."""
    centres, strides = [], []
    for stride in STRIDES:
        side = IMAGE_SIZE // stride
        axis = (torch.arange(side, dtype=torch.float32) + 0.5) * stride
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        centres.append(torch.stack([x.flatten(), y.flatten()]))
        strides.append(torch.full((1, side * side), float(stride)))
    return torch.cat(centres, 1)[None], torch.cat(strides, 1)[None]
