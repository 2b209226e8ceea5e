"""Made-up bare circuit boards with known defects, as a binarising line-scan camera would show them.

    python -m triptych_demo.detector.boards --out DIR --count 500 --seed 7

writes DIR/images/*.jpg (grey, 640x640) and DIR/instances.json (COCO). The same seed gives the same boards.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.progress import track

from triptych_demo.detector.artwork import Mask
from triptych_demo.detector.camera import SIZE, photograph
from triptych_demo.detector.command import run
from triptych_demo.detector.defects import CLASS_NAMES, Defect, DefectPainter
from triptych_demo.detector.layout import CANVAS, draw_artwork

MAX_DEFECTS = 12
_MARGIN = (CANVAS - SIZE) / 2
_SCRAP_AREA = 70


@dataclass(frozen=True)
class Board:
    """One picture with its labels.

    image: uint8 [640, 640, 3], RGB with three equal channels; exactly what `jpeg` decodes to.
    boxes_xyxy: float32 [n, 4], pixels.
    labels: int64 [n], index into CLASS_NAMES.
    jpeg: the encoded grey picture.
    """

    image: npt.NDArray[np.uint8]
    boxes_xyxy: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    jpeg: bytes


@dataclass(frozen=True)
class Composition:
    """What a board is made of: copper masks uint8 [640, 640] of 0 and 1, without and with its defects."""

    clean: Mask
    defective: Mask
    defects: list[Defect]


def generate(seed: int, index: int, most_defects: int = MAX_DEFECTS) -> Board:
    """Return board number `index` of the endless series `seed`, with up to `most_defects` defects."""
    rng = np.random.default_rng([seed, index])
    made = _compose(rng, most_defects)
    jpeg = photograph(made.defective, rng)
    grey = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    return Board(
        image=np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8),
        boxes_xyxy=np.array([d.box_xyxy for d in made.defects], np.float32).reshape(-1, 4),
        labels=np.array([d.label for d in made.defects], np.int64),
        jpeg=jpeg,
    )


def compose(seed: int, index: int) -> Composition:
    """Return copper and defects of `generate(seed, index)`, before the camera."""
    return _compose(np.random.default_rng([seed, index]), MAX_DEFECTS)


def _compose(rng: np.random.Generator, most_defects: int) -> Composition:
    clean, traces = _placed_artwork(rng)
    painter = DefectPainter(clean, traces, rng)
    wanted = 0 if rng.random() < 0.05 else int(rng.integers(1, most_defects + 1))
    for _ in range(wanted * 2):
        if len(painter.defects) == wanted:
            break
        painter.add(int(rng.integers(len(CLASS_NAMES))))
    return Composition(clean, painter.copper, painter.defects)


def _placed_artwork(rng: np.random.Generator) -> tuple[Mask, npt.NDArray[np.float64]]:
    """Draw the copper and lay it under the camera slightly turned and shifted."""
    while True:
        art = draw_artwork(rng)
        share = float(art.copper.mean()) / 255.0
        if 0.06 < share < 0.94:
            break
    angle = float(rng.normal(0.0, 0.6)) if rng.random() < 0.7 else 0.0
    turn = cv2.getRotationMatrix2D((CANVAS / 2, CANVAS / 2), float(np.clip(angle, -2.0, 2.0)), 1.0)
    matrix = np.asarray(turn, np.float64)
    matrix[:, 2] += rng.uniform(-8.0, 8.0, 2) - _MARGIN
    warped = cv2.warpAffine(art.copper, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
    clean = _without_scraps((warped > 127).astype(np.uint8))
    pieces = np.array(art.traces, np.float64).reshape(-1, 5)
    pieces[:, 0:2] = pieces[:, 0:2] @ matrix[:, :2].T + matrix[:, 2]
    pieces[:, 2:4] = pieces[:, 2:4] @ matrix[:, :2].T + matrix[:, 2]
    return clean, _clipped(pieces)


def _without_scraps(copper: Mask) -> Mask:
    """Drop specks of copper and of laminate that cropping left: they would pass for unlabelled defects."""
    for value in (1, 0):
        _, bodies, stats, _ = cv2.connectedComponentsWithStats((copper == value).astype(np.uint8), connectivity=4)
        copper = np.where((stats[:, cv2.CC_STAT_AREA] < _SCRAP_AREA)[bodies], 1 - copper, copper).astype(np.uint8)
    return copper


def _clipped(traces: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the parts of `traces` float [T, 5] that lie in the picture."""
    kept: list[tuple[float, float, float, float, float]] = []
    for x1, y1, x2, y2, width in traces.tolist():
        ends = (round(x1), round(y1)), (round(x2), round(y2))
        seen, a, b = cv2.clipLine((0, 0, SIZE, SIZE), *ends)
        if seen:
            kept.append((*a, *b, width))
    return np.array(kept, np.float64).reshape(-1, 5)


def coco_document(boards: list[tuple[str, Board]]) -> dict[str, Any]:
    """Return COCO `instances` of (file name, board) pairs; image, annotation and category ids begin at 1."""
    annotations: list[dict[str, Any]] = []
    for image_id, (_, board) in enumerate(boards, 1):
        for (x1, y1, x2, y2), label in zip(board.boxes_xyxy.tolist(), board.labels.tolist(), strict=True):
            width, height = x2 - x1, y2 - y1
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": label + 1,
                    "bbox": [round(v, 2) for v in (x1, y1, width, height)],
                    "area": round(width * height, 2),
                    "iscrowd": 0,
                }
            )
    return {
        "info": {"description": "Made-up bare printed-circuit boards with defects (Triptych)"},
        "licenses": [{"id": 1, "name": "Apache-2.0"}],
        "images": [
            {"id": k, "file_name": name, "width": SIZE, "height": SIZE, "license": 1}
            for k, (name, _) in enumerate(boards, 1)
        ],
        "annotations": annotations,
        "categories": [{"id": k, "name": name} for k, name in enumerate(CLASS_NAMES, 1)],
    }


def generate_many(seed: int, count: int, workers: int) -> Iterator[Board]:
    """Make boards 0 to count-1 of a series, in order, in `workers` processes."""
    make = partial(generate, seed)
    if workers == 1:
        yield from map(make, range(count))
        return
    # Spawned: a process that is forked while another thread of a runtime holds a lock waits for it for ever.
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, fresh, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from pool.map(make, range(count), chunksize=8)


def write_set(out: Path, seed: int, count: int, workers: int) -> int:
    """Write a COCO set to the directory `out`, replaced only once all of it is there; return how many defects."""
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        (aside / "images").mkdir()
        named: list[tuple[str, Board]] = []
        made = generate_many(seed, count, workers)
        console = Console(stderr=True)
        for index, board in enumerate(track(made, "boards", count, console=console, disable=not console.is_terminal)):
            name = f"board_{seed}_{index:05d}.jpg"
            (aside / "images" / name).write_bytes(board.jpeg)
            # The pixels are on disk now; a large set would not fit in memory.
            labels_only = Board(np.zeros((0, 0, 3), np.uint8), board.boxes_xyxy, board.labels, b"")
            named.append((name, labels_only))
        (aside / "instances.json").write_text(json.dumps(coco_document(named)), encoding="utf-8")
        aside.chmod(0o755)
        _replace(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return sum(len(board.labels) for _, board in named)


def _replace(aside: Path, out: Path) -> None:
    """Put `aside` in the place of `out`; only a set that this program wrote before is removed for it."""
    for stale in (out / "images", out / "instances.json"):
        if stale.is_dir():
            shutil.rmtree(stale)
        else:
            stale.unlink(missing_ok=True)
    out.mkdir(exist_ok=True)
    (aside / "images").rename(out / "images")
    (aside / "instances.json").rename(out / "instances.json")


def main(
    out: Annotated[
        Path, typer.Option("--out", file_okay=False, help="The directory to write; an earlier set in it is replaced.")
    ],
    count: Annotated[int, typer.Option("--count", min=1, help="How many boards.")] = 500,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Which series of boards.")] = 7,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes. Default: one for each core.")
    ] = None,
) -> None:
    """Write made-up boards with their defects, as a COCO set."""
    defects = write_set(out, seed, count, workers or os.cpu_count() or 1)
    typer.echo(f"{count} boards with {defects} defects in {out}")


if __name__ == "__main__":
    run(main)
