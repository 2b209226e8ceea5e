"""Train the demo detector on made-up boards and export it to ONNX.

    python -m triptych_demo.detector.train --out demo/pcb.onnx --compile       # minutes on a data-centre GPU
    python -m triptych_demo.detector.train --out /tmp/try.onnx --device cpu --boards 64 --batch 4 --steps 20

Needs PyTorch (`pip install 'triptych[torch]'`).
"""

from __future__ import annotations

import copy
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor, nn

from triptych_demo.detector.boards import Board, coco_document, generate
from triptych_demo.detector.command import run
from triptych_demo.detector.defects import CLASS_NAMES
from triptych_demo.detector.evaluate import Floats, Metrics, evaluate, table
from triptych_demo.detector.export import export
from triptych_demo.detector.loss import detection_loss
from triptych_demo.detector.model import Detector, Exported
from triptych_demo.detector.training_boards import augment, batches, make_boards

HELD_OUT_SEED = 1000
WATCH_SEED = 1001
WATCH_COUNT = 200
WARM_UP_STEPS = 300
EMA_DECAY = 0.9995


@dataclass(frozen=True)
class Settings:
    """How to train; the options of the command line say what each field means."""

    boards: int
    epochs: int
    steps: int
    batch: int
    rate: float
    watch: int
    seed: int
    workers: int
    compiled: bool


def optimiser_for(model: nn.Module, rate: float, device: torch.device) -> torch.optim.AdamW:
    """Return AdamW with weight decay on convolution weights alone."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": 0.03}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, fused=device.type == "cuda")


def rate_factor(step: int, progress: float) -> float:
    """Return the share of the highest rate: linear warm-up, then a cosine down to 1%.

    `progress` is the part of the training that is done, 0 to 1.
    """
    return min(1.0, (step + 1) / WARM_UP_STEPS) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def advance(optimiser: torch.optim.AdamW, model: nn.Module, loss: Tensor) -> None:
    """Move the weights one step down the loss."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimiser.step()


def follow(average: nn.Module, model: nn.Module, step: int) -> None:
    """Move the exponential moving average one step towards `model`."""
    decay = EMA_DECAY * (1 - math.exp(-(step + 1) / 1000))
    slow, fast = list(average.state_dict().values()), list(model.state_dict().values())
    floats = [k for k, tensor in enumerate(slow) if tensor.is_floating_point()]
    with torch.no_grad():
        torch._foreach_lerp_([slow[k] for k in floats], [fast[k] for k in floats], 1 - decay)


def losses(model: Detector, pixels: Tensor, truth: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return box and score loss of a batch: pixels [B, 3, 640, 640] in 0..1, boxes [B, M, 4], classes [B, M]."""
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=pixels.is_cuda):
        boxes, logits = model(pixels)
    return detection_loss(boxes, logits, model.centres[0].T, truth, labels)


class Clock:
    """How far the training is: by steps, or by the time that is left to the whole run."""

    def __init__(self, steps: int, deadline_s: float | None) -> None:
        self.steps, self.deadline_s = steps, deadline_s
        self.began_s = 0.0

    def progress(self, step: int) -> float:
        """Return how far it is: 0 before the first step, 1 when training is over."""
        if self.deadline_s is None:
            return step / self.steps
        if step <= 1:
            # The first step compiles; its time is no measure of the others.
            self.began_s = time.monotonic()
            return 0.0
        return min(1.0, (time.monotonic() - self.began_s) / max(1.0, self.deadline_s - self.began_s))


def train(settings: Settings, device: torch.device, deadline_s: float | None) -> Detector:
    """Train on generated boards; return the moving average of the weights."""
    torch.manual_seed(settings.seed)
    boards = make_boards(settings.seed, settings.boards, settings.workers).to(device)
    watch = [generate(WATCH_SEED, index) for index in range(WATCH_COUNT)] if settings.watch else []
    model = Detector(len(CLASS_NAMES)).to(device, memory_format=torch.channels_last)
    average: Detector = copy.deepcopy(model).eval()
    optimiser = optimiser_for(model, settings.rate, device)
    clock = Clock(settings.steps or settings.epochs * max(1, settings.boards // settings.batch), deadline_s)
    loss_of = torch.compile(losses) if settings.compiled else losses
    started, measured = time.monotonic(), 0
    for step, rows in enumerate(batches(settings.boards, settings.batch, device)):
        progress = clock.progress(step)
        if watch and progress * settings.watch >= measured + 1:
            measured += 1
            typer.echo(table(_measure(average, watch, device)))
        if progress >= 1.0:
            break
        for group in optimiser.param_groups:
            group["lr"] = settings.rate * rate_factor(step, progress)
        batch = boards.at(rows)
        pixels, truth = augment(batch)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        box_loss, score_loss = loss_of(model, pixels, truth, batch.labels)
        advance(optimiser, model, box_loss + score_loss)
        follow(average, model, step)
        if step % 200 == 0 or step in (1, 20, 100):
            figures = f"box {box_loss.item():.4f}, score {score_loss.item():.4f}"
            typer.echo(f"step {step}, {progress:.0%}, {time.monotonic() - started:.0f} s: {figures}")
    return average


def _measure(model: Detector, boards: list[Board], device: torch.device) -> Metrics:
    wrapped = Exported(model).eval()

    def predict(pixels: Floats) -> Floats:
        with torch.no_grad():
            return np.asarray(wrapped(torch.from_numpy(pixels).to(device)).cpu().numpy(), np.float32)

    named = [(f"{index}.jpg", board) for index, board in enumerate(boards)]
    return evaluate(predict, (board.image for board in boards), coco_document(named))


def main(
    out: Annotated[Path, typer.Option("--out", dir_okay=False, help="The ONNX file to write.")],
    boards: Annotated[int, typer.Option("--boards", min=1, help="Boards to generate and train on.")] = 16000,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Times that each board is seen.")] = 66,
    steps: Annotated[int, typer.Option("--steps", min=0, help="Batches to train on, in place of --epochs.")] = 0,
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="End the whole run after about so long, in place of --epochs.")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the step: a minute more, then faster steps.")
    ] = False,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Boards a step.")] = 128,
    rate: Annotated[float, typer.Option("--rate", help="Highest learning rate.")] = 3e-3,
    watch: Annotated[int, typer.Option("--watch", min=0, help="Times that accuracy is measured on the way.")] = 3,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Series of boards, and of weights.")] = 20,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes that make boards. Default: one for each core.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="cuda or cpu. Default: cuda where there is one.")
    ] = None,
) -> None:
    """Train the demo detector on made-up boards and export it to ONNX."""
    if seed in (HELD_OUT_SEED, WATCH_SEED):
        raise typer.BadParameter(f"{seed} makes the boards that accuracy is measured on", param_hint="--seed")
    on = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if on.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = True
    started = time.monotonic()
    deadline_s = None if minutes is None else started + minutes * 60
    settings = Settings(boards, epochs, steps, batch, rate, watch, seed, workers or os.cpu_count() or 1, compiled)
    difference = export(train(settings, on, deadline_s), out)
    took = f"{out.stat().st_size / 1e6:.1f} MB, {(time.monotonic() - started) / 60:.1f} min"
    typer.echo(f"{out}: {took}, ONNX and PyTorch differ by at most {difference:.2g}")


if __name__ == "__main__":
    run(main)
