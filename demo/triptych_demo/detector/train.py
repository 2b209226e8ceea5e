"""Train the demo detector on made-up boards and export it to ONNX.

python -m triptych_demo.detector.train --out demo/pcb.onnx --compile            # minutes on a data-centre GPU
python -m triptych_demo.detector.train --out /tmp/try.onnx --device cpu --boards 64 --batch 4 --steps 20    # a smoke run

Needs PyTorch, NumPy, OpenCV, onnx and onnxruntime; faster-coco-eval if accuracy is to be measured on the way.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych_demo.detector.boards import SIZE, Board, coco_document, generate
from triptych_demo.detector.defects import CLASS_NAMES
from triptych_demo.detector.evaluate import Floats, evaluate, table
from triptych_demo.detector.loss import detection_loss
from triptych_demo.detector.model import STRIDES, Detector, Exported

HELD_OUT_SEED = 1000
WATCH_SEED = 1001
WATCH_COUNT = 200
CHUNK = 32
MOST_DEFECTS = 24
"""On a training board: twice what `boards.py` puts on one, so that each board teaches more."""
WARM_UP_STEPS = 300
EMA_DECAY = 0.9995


@dataclass(frozen=True)
class Boards:
    """Training boards: grey uint8 [N, 640, 640], boxes_xyxy float32 [N, M, 4], labels int64 [N, M], -1 for none."""

    grey: Tensor
    boxes_xyxy: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> Boards:
        return Boards(self.grey.to(device), self.boxes_xyxy.to(device), self.labels.to(device))


def _make_chunk(path: str, count: int, seed: int, start: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Write boards start..start+CHUNK into the array file `path`; return their padded boxes and labels."""
    stop = min(start + CHUNK, count)
    pixels = np.memmap(path, np.uint8, "r+", shape=(count, SIZE, SIZE))
    boxes = np.zeros((stop - start, MOST_DEFECTS, 4), np.float32)
    labels = np.full((stop - start, MOST_DEFECTS), -1, np.int64)
    for row, index in enumerate(range(start, stop)):
        board = generate(seed, index, MOST_DEFECTS)
        pixels[index] = board.image[:, :, 0]
        boxes[row, : len(board.labels)] = board.boxes_xyxy
        labels[row, : len(board.labels)] = board.labels
    return boxes, labels


def make_boards(seed: int, count: int, workers: int) -> Boards:
    """Generate `count` boards in parallel, pixels through a file that the processes share."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="boards-") as scratch:
        path = str(Path(scratch) / "pixels")
        np.memmap(path, np.uint8, "w+", shape=(count, SIZE, SIZE)).flush()
        make = partial(_make_chunk, path, count, seed)
        starts = range(0, count, CHUNK)
        parts: list[tuple[Floats, npt.NDArray[np.int64]]] = []
        with ProcessPoolExecutor(workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
            for part in pool.map(make, starts):
                parts.append(part)
                if len(parts) % 100 == 0 or len(parts) == len(starts):
                    made = min(len(parts) * CHUNK, count)
                    print(f"{made} of {count} boards, {time.monotonic() - started:.0f} s", flush=True)
        grey = torch.from_numpy(np.fromfile(path, np.uint8).reshape(count, SIZE, SIZE))
    boxes, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Boards(grey, torch.from_numpy(boxes), torch.from_numpy(labels))


def augment(batch: Boards) -> tuple[Tensor, Tensor]:
    """Pixels float32 [B, 3, 640, 640] in 0..1 and boxes [B, M, 4], each board turned, mirrored and exposed anew."""
    turned: list[Tensor] = []
    boxes = batch.boxes_xyxy.clone()
    # One of the square's eight symmetries for every eighth of the batch, which is in random order already.
    for k, rows in enumerate(torch.arange(len(boxes)).chunk(8)):
        grey, box = batch.grey[rows], boxes[rows]
        if k & 1:
            grey, box = (
                grey.flip(2),
                torch.stack([SIZE - box[..., 2], box[..., 1], SIZE - box[..., 0], box[..., 3]], -1),
            )
        if k & 2:
            grey, box = (
                grey.flip(1),
                torch.stack([box[..., 0], SIZE - box[..., 3], box[..., 2], SIZE - box[..., 1]], -1),
            )
        if k & 4:
            grey, box = grey.transpose(1, 2), box[..., [1, 0, 3, 2]]
        turned.append(grey)
        boxes[rows] = box
    pixels = torch.cat(turned).float() / 255.0
    count, device = len(pixels), pixels.device

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, 1, 1, device=device) * (high - low) + low

    pixels = torch.where(uniform(0, 1) < 0.3, 1.0 - pixels, pixels)
    blurred = functional.avg_pool2d(pixels[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
    pixels = pixels + (blurred - pixels) * (uniform(0, 1) < 0.15) * uniform(0.3, 1.0)
    pixels = pixels.clamp(0, 1) ** uniform(0.7, 1.4)
    pixels = (pixels - 0.5) * uniform(0.7, 1.15) + 0.5 + uniform(-0.12, 0.12)
    pixels = pixels + torch.randn_like(pixels) * uniform(0.0, 0.05) * (uniform(0, 1) < 0.4)
    return pixels.clamp(0, 1)[:, None].expand(-1, 3, -1, -1), boxes


def batches(count: int, size: int, device: torch.device) -> Iterator[Tensor]:
    """Endless index tensors [size] on `device`: all boards once in random order, then anew."""
    order = torch.empty(0, dtype=torch.int64, device=device)
    while True:
        while len(order) < size:
            order = torch.cat([order, torch.randperm(count, device=device)])
        yield order[:size]
        order = order[size:]


def optimiser_for(model: nn.Module, rate: float, device: torch.device) -> torch.optim.AdamW:
    """AdamW with weight decay on convolution weights alone."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": 0.03}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, fused=device.type == "cuda")


def rate_factor(step: int, progress: float) -> float:
    """Linear warm-up, then a cosine down to 1%; `progress` is the part of the training that is done, 0 to 1."""
    return min(1.0, (step + 1) / WARM_UP_STEPS) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, step: int) -> None:
    """Move the exponential moving average one step towards `model`."""
    decay = EMA_DECAY * (1 - math.exp(-(step + 1) / 1000))
    slow, fast = list(average.state_dict().values()), list(model.state_dict().values())
    floats = [k for k, tensor in enumerate(slow) if tensor.is_floating_point()]
    torch._foreach_lerp_([slow[k] for k in floats], [fast[k] for k in floats], 1 - decay)


def losses(model: Detector, pixels: Tensor, truth: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Box and score loss of a batch: pixels [B, 3, 640, 640] in 0..1, boxes [B, M, 4], classes [B, M]."""
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=pixels.is_cuda):
        boxes, logits = model(pixels)
    return detection_loss(boxes, logits, model.centres[0].T, truth, labels)


class Clock:
    """How far the training is: by steps, or by the time that is left to the whole run."""

    def __init__(self, steps: int, deadline_s: float | None) -> None:
        self.steps, self.deadline_s = steps, deadline_s
        self.began_s = 0.0

    def progress(self, step: int) -> float:
        """0 before the first step to 1 when training is over."""
        if self.deadline_s is None:
            return step / self.steps
        if step <= 1:
            # The first step compiles; its time is no measure of the others.
            self.began_s = time.monotonic()
            return 0.0
        return min(1.0, (time.monotonic() - self.began_s) / max(1.0, self.deadline_s - self.began_s))


def train(arguments: argparse.Namespace, device: torch.device, deadline_s: float | None) -> Detector:
    """Train on generated boards; returns the moving average of the weights."""
    torch.manual_seed(arguments.seed)
    boards = make_boards(arguments.seed, arguments.boards, arguments.workers).to(device)
    watch = _watch_set() if importlib.util.find_spec("faster_coco_eval") and arguments.watch else None
    model = Detector(len(CLASS_NAMES)).to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(model).eval()
    optimiser = optimiser_for(model, arguments.rate, device)
    clock = Clock(arguments.steps or arguments.epochs * max(1, arguments.boards // arguments.batch), deadline_s)
    loss_of = torch.compile(losses) if arguments.compile else losses
    started, measured = time.monotonic(), 0
    for step, rows in enumerate(batches(arguments.boards, arguments.batch, device)):
        progress = clock.progress(step)
        if watch and progress * arguments.watch >= measured + 1:
            measured += 1
            print(table(_measure(average, watch, device)), flush=True)
        if progress >= 1.0:
            break
        for group in optimiser.param_groups:
            group["lr"] = arguments.rate * rate_factor(step, progress)
        batch = Boards(boards.grey[rows], boards.boxes_xyxy[rows], boards.labels[rows])
        pixels, truth = augment(batch)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        box_loss, score_loss = loss_of(model, pixels, truth, batch.labels)
        optimiser.zero_grad(set_to_none=True)
        (box_loss + score_loss).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        follow(average, model, step)
        if step % 200 == 0 or step in (1, 20, 100):
            seconds = time.monotonic() - started
            told = f"box {box_loss.item():.4f}, score {score_loss.item():.4f}"
            print(f"step {step}, {progress:.0%}, {seconds:.0f} s: {told}", flush=True)
    return average


def _watch_set() -> list[Board]:
    return [generate(WATCH_SEED, index) for index in range(WATCH_COUNT)]


def _measure(model: Detector, boards: list[Board], device: torch.device) -> Any:
    wrapped = Exported(model).eval()

    @torch.no_grad()
    def predict(pixels: Floats) -> Floats:
        return np.asarray(wrapped(torch.from_numpy(pixels).to(device)).cpu().numpy(), np.float32)

    named = [(f"{index}.jpg", board) for index, board in enumerate(boards)]
    return evaluate(predict, (board.image for board in boards), coco_document(named))


def export(model: Detector, path: Path, statistic: Callable[[Floats], Any] = np.max, limit: float = 1e-2) -> float:
    """Write `model` as ONNX with its metadata; returns how far both are apart on boards, and refuses beyond `limit`.

    The difference is in pixels for boxes and in 0..1 for scores, a statistic of it over a batch of two.
    """
    wrapped = Exported(copy.deepcopy(model).cpu().float().to(memory_format=torch.contiguous_format).eval().fuse())
    pixels = np.stack([generate(WATCH_SEED, index).image for index in range(2)])
    sample = torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    try:
        torch.onnx.export(
            wrapped,
            (sample,),
            str(aside),
            opset_version=17,
            dynamo=False,
            input_names=["images"],
            output_names=["output0"],
            dynamic_axes={"images": {0: "batch"}, "output0": {0: "batch"}},
        )
        _describe(aside)
        with torch.no_grad():
            expected = wrapped(sample).numpy()
        session = onnxruntime.InferenceSession(str(aside), providers=["CPUExecutionProvider"])
        difference = float(statistic(np.abs(session.run(None, {"images": sample.numpy()})[0] - expected)))
        if difference > limit:
            raise RuntimeError(f"the exported ONNX differs from PyTorch by {difference:.4g}, more than {limit:g}")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return difference


def _describe(path: Path) -> None:
    """Write the metadata that tools read: class names as in Ultralytics' exports, task, stride, size, licence."""
    model = onnx.load(str(path))
    properties = {
        "names": str(dict(enumerate(CLASS_NAMES))),
        "task": "detect",
        "stride": str(max(STRIDES)),
        "imgsz": json.dumps([SIZE, SIZE]),
        "author": "Triptych",
        "license": "Apache-2.0",
        "description": "Bare printed-circuit-board defects; trained on generated boards",
    }
    onnx.helper.set_model_props(model, properties)
    batch = model.graph.output[0].type.tensor_type.shape.dim
    for dim, size in zip(batch[1:], (4 + len(CLASS_NAMES), sum((SIZE // s) ** 2 for s in STRIDES)), strict=True):
        dim.dim_value = size
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True, help="the ONNX file to write")
    parser.add_argument("--boards", type=int, default=16000, help="boards to generate and train on (default: 16000)")
    parser.add_argument("--epochs", type=int, default=66, help="times that each board is seen (default: 66)")
    parser.add_argument("--steps", type=int, default=0, help="batches to train on, in place of --epochs")
    parser.add_argument("--minutes", type=float, help="end the whole run after about so long, in place of --epochs")
    parser.add_argument("--compile", action="store_true", help="compile the step: a minute more, then faster steps")
    parser.add_argument("--batch", type=int, default=128, help="boards a step (default: 128)")
    parser.add_argument("--rate", type=float, default=3e-3, help="highest learning rate (default: 0.003)")
    parser.add_argument("--watch", type=int, default=3, help="times that accuracy is measured on the way (default: 3)")
    parser.add_argument("--seed", type=int, default=20, help="series of boards, and of weights (default: 20)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that generate boards")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda or cpu")
    arguments = parser.parse_args()
    for name in ("boards", "epochs", "batch", "workers"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be 1 or more, but got {getattr(arguments, name)}")
    if arguments.seed in (HELD_OUT_SEED, WATCH_SEED):
        parser.error(f"--seed {arguments.seed} makes the boards that accuracy is measured on; choose another")
    return arguments


def main() -> None:
    """Command line."""
    arguments = _arguments()
    device = torch.device(arguments.device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = True
    started = time.monotonic()
    deadline_s = None if arguments.minutes is None else started + arguments.minutes * 60
    model = train(arguments, device, deadline_s)
    difference = export(model, arguments.out)
    minutes = (time.monotonic() - started) / 60
    size_mb = arguments.out.stat().st_size / 1e6
    print(f"{arguments.out}: {size_mb:.1f} MB, {minutes:.1f} min, ONNX and PyTorch differ by at most {difference:.2g}")


if __name__ == "__main__":
    main()
