"""Train the demo detector on with int8's rounding in place, and export it with its Q/DQ pairs.

    python -m triptych_demo.detector.qat demo/pcb.onnx --out demo/pcb_qat.onnx          # two minutes on a big GPU
    python -m triptych_demo.detector.qat demo/pcb.onnx --out /tmp/try.onnx --device cpu --boards 32 --batch 4 --steps 4

Every convolution rounds its input and its weights as an int8 engine will: symmetric, one scale for the input, one for
each channel of the weights. The input's scale is set once, from what passes through before training; the weights'
follows the weights. `triptych build` takes the export as it is and keeps these scales.

Needs PyTorch (`pip install 'triptych[torch]'`).
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import onnx.numpy_helper
import torch
import typer
from torch import Tensor, nn
from torch.nn import functional

from triptych_demo.detector.command import run
from triptych_demo.detector.defects import CLASS_NAMES
from triptych_demo.detector.export import export
from triptych_demo.detector.loss import detection_loss
from triptych_demo.detector.model import Detector
from triptych_demo.detector.train import advance, optimiser_for, rate_factor
from triptych_demo.detector.training_boards import Boards, augment, batches, make_boards

PERCENTILE = 99.999
"""Of the absolute values of an input: what lies above is clipped."""

LIMIT = 127
"""Largest int8; -128 stays unused, so that scales are symmetric."""


class QuantizedConv(nn.Conv2d):  # type: ignore[misc]
    """A convolution that sees its input and its weights rounded to int8; gradients pass as if they were not.

    Attributes:
        input_scale: float32 [], set by `measure`.
        weight_scale: float32 [C], follows the weights while they are trained.
    """

    input_scale: Tensor
    weight_scale: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, bias=conv.bias is not None
        )
        self.load_state_dict(conv.state_dict())
        self.register_buffer("input_scale", torch.zeros(()))
        self.register_buffer("weight_scale", torch.ones(conv.out_channels))
        self.is_measuring = False

    def forward(self, x: Tensor) -> Tensor:
        if self.is_measuring:
            magnitudes = x.detach().abs().flatten()
            # A quantile of millions of values, by its rank from the top.
            rank = max(1, round(len(magnitudes) * (1 - PERCENTILE / 100)))
            self.input_scale.copy_(torch.maximum(self.input_scale, magnitudes.topk(rank).values[-1] / LIMIT))
            return super().forward(x)
        zero = torch.zeros((), dtype=torch.int32, device=x.device)
        x = torch.fake_quantize_per_tensor_affine(x, self.input_scale, zero, -LIMIT - 1, LIMIT)
        if self.training:
            self.weight_scale.copy_(self.weight.detach().abs().amax((1, 2, 3)).clamp(min=1e-8) / LIMIT)
        zeros = torch.zeros_like(self.weight_scale, dtype=torch.int32)
        weight = torch.fake_quantize_per_channel_affine(self.weight, self.weight_scale, zeros, 0, -LIMIT - 1, LIMIT)
        return functional.conv2d(x, weight, self.bias, self.stride, self.padding)


def read_weights(path: Path) -> Detector:
    """Return the detector with the weights of an exported ONNX, its normalisations folded away as they are there."""
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    model = Detector(len(CLASS_NAMES)).fuse()
    prefix = "detector."
    state = {
        name.removeprefix(prefix): torch.from_numpy(array.copy())
        for name, array in weights.items()
        if name.startswith(prefix)
    }
    model.load_state_dict(state)
    return model


def quantize(module: nn.Module) -> nn.Module:
    """Put a rounding convolution in the place of every convolution; in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            setattr(module, name, QuantizedConv(child))
        else:
            quantize(child)
    return module


def measure(model: Detector, pixels: list[Tensor]) -> None:
    """Set the scale of every convolution's input from some batches [B, 3, 640, 640]."""
    convs = [module for module in model.modules() if isinstance(module, QuantizedConv)]
    for conv in convs:
        conv.is_measuring = True
    with torch.no_grad():
        for batch in pixels:
            model(batch)
    for conv in convs:
        conv.is_measuring = False


def train(model: Detector, boards: Boards, steps: int, batch: int, rate: float) -> None:
    """Go on training at a small rate; in place."""
    optimiser = optimiser_for(model, rate, boards.grey.device)
    started = time.monotonic()
    for step, rows in enumerate(batches(len(boards.grey), batch, boards.grey.device)):
        if step == steps:
            break
        for group in optimiser.param_groups:
            group["lr"] = rate * rate_factor(step + 1000, step / steps)
        chosen = boards.at(rows)
        pixels, truth = augment(chosen)
        boxes, logits = model(pixels)
        box_loss, score_loss = detection_loss(boxes, logits, model.centres[0].T, truth, chosen.labels)
        advance(optimiser, model, box_loss + score_loss)
        if step % 100 == 0:
            figures = f"box {box_loss.item():.4f}, score {score_loss.item():.4f}"
            typer.echo(f"step {step} of {steps}, {time.monotonic() - started:.0f} s: {figures}")


def main(
    model: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="What train exported.")],
    out: Annotated[Path, typer.Option("--out", dir_okay=False, help="The ONNX with Q/DQ pairs.")],
    boards: Annotated[int, typer.Option("--boards", min=1, help="Boards to generate and train on.")] = 4096,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Batches to train on.")] = 600,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Boards a step.")] = 64,
    rate: Annotated[float, typer.Option("--rate", help="Highest learning rate.")] = 1e-4,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Series of boards.")] = 21,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes that make boards. Default: one for each core.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="cuda or cpu. Default: cuda where there is one.")
    ] = None,
) -> None:
    """Train the demo detector on with int8's rounding in place, and export it with its Q/DQ pairs."""
    torch.manual_seed(seed)
    on = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    made = make_boards(seed, boards, workers or os.cpu_count() or 1).to(on)
    detector = read_weights(model)
    quantize(detector)
    detector.to(on).train()
    rows = batches(boards, batch, on)
    measure(detector, [augment(made.at(at))[0] for at, _ in zip(rows, range(8), strict=False)])
    train(detector, made, steps, batch, rate)
    # Where a value lies between two steps, two runtimes may round it either way: few boxes differ, and by pixels.
    difference = export(detector, out, statistic=np.mean, limit=0.5)
    typer.echo(f"{out}: ONNX and PyTorch differ by {difference:.2g} in the mean")


if __name__ == "__main__":
    run(main)
