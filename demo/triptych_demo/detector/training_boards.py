"""The boards that the detector is trained on: many, in one tensor, and never twice the same way up."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
import typer
from torch import Tensor
from torch.nn import functional

from triptych_demo.detector.boards import generate
from triptych_demo.detector.camera import SIZE
from triptych_demo.detector.evaluate import Floats

CHUNK = 32
MOST_DEFECTS = 24
"""On a training board: twice what `boards.py` puts on one, so that each board teaches more."""


@dataclass(frozen=True)
class Boards:
    """Training boards: grey uint8 [N, 640, 640], boxes_xyxy float32 [N, M, 4], labels int64 [N, M], -1 for none."""

    grey: Tensor
    boxes_xyxy: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> Boards:
        """Return them on a device."""
        return Boards(self.grey.to(device), self.boxes_xyxy.to(device), self.labels.to(device))

    def at(self, rows: Tensor) -> Boards:
        """Return those at these indices."""
        return Boards(self.grey[rows], self.boxes_xyxy[rows], self.labels[rows])


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
                    typer.echo(f"{made} of {count} boards, {time.monotonic() - started:.0f} s")
        grey = torch.from_numpy(np.fromfile(path, np.uint8).reshape(count, SIZE, SIZE))
    boxes, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Boards(grey, torch.from_numpy(boxes), torch.from_numpy(labels))


def augment(batch: Boards) -> tuple[Tensor, Tensor]:
    """Turn, mirror and expose each board at random; return pixels float32 [B, 3, 640, 640] in 0..1, boxes [B, M, 4]."""
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
    """Give index tensors [size] on `device` without end: all boards once in random order, then in another."""
    order = torch.empty(0, dtype=torch.int64, device=device)
    while True:
        while len(order) < size:
            order = torch.cat([order, torch.randperm(count, device=device)])
        yield order[:size]
        order = order[size:]
