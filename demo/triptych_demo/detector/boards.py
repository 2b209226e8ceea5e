"""Made-up bare circuit boards with known defects, as a binarising line-scan camera would show them.

python -m triptych_demo.detector.boards --out DIR --count 500 --seed 7

writes DIR/images/*.jpg (grey, 640x640) and DIR/instances.json (COCO). The same seed gives the same boards.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from triptych_demo.detector.defects import CLASS_NAMES, Defect, DefectPainter, Mask
from triptych_demo.detector.layout import CANVAS, draw_artwork

SIZE = 640
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
    flawed: Mask
    defects: list[Defect]


def generate(seed: int, index: int, most_defects: int = MAX_DEFECTS) -> Board:
    """Board number `index` of the endless series `seed`, with up to `most_defects` defects."""
    rng = np.random.default_rng([seed, index])
    made = _compose(rng, most_defects)
    jpeg = _photograph(made.flawed, rng)
    grey = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    return Board(
        image=np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8),
        boxes_xyxy=np.array([d.box_xyxy for d in made.defects], np.float32).reshape(-1, 4),
        labels=np.array([d.label for d in made.defects], np.int64),
        jpeg=jpeg,
    )


def compose(seed: int, index: int) -> Composition:
    """Copper and defects of `generate(seed, index)`, before the camera."""
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
    matrix = cv2.getRotationMatrix2D((CANVAS / 2, CANVAS / 2), float(np.clip(angle, -2.0, 2.0)), 1.0)
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
    """The parts of `traces` float [T, 5] that lie in the picture."""
    kept: list[tuple[float, float, float, float, float]] = []
    for x1, y1, x2, y2, width in traces.tolist():
        ends = (round(x1), round(y1)), (round(x2), round(y2))
        seen, a, b = cv2.clipLine((0, 0, SIZE, SIZE), *ends)
        if seen:
            kept.append((*a, *b, width))
    return np.array(kept, np.float64).reshape(-1, 5)


def _photograph(copper: Mask, rng: np.random.Generator) -> bytes:
    """Picture `copper` (uint8 [640, 640] of 0 and 1) and encode it as a grey JPEG."""
    hard = rng.random() < 0.6
    sharp = cv2.GaussianBlur(copper.astype(np.float32), (0, 0), float(rng.uniform(0.5, 1.3)))
    # Noise on the edge before the threshold makes ragged contours and leaves flat areas flat.
    ragged = _smooth_noise(rng, float(rng.uniform(0.6, 2.2))) * float(rng.uniform(0.0, 0.16))
    gain = float(rng.uniform(8.0, 30.0)) if hard else float(rng.uniform(1.2, 4.0))
    tone = np.clip((sharp + ragged - float(rng.uniform(0.42, 0.58))) * gain + 0.5, 0.0, 1.0)
    low, high = (0.0, 255.0) if hard and rng.random() < 0.6 else (rng.uniform(0.0, 80.0), rng.uniform(150.0, 255.0))
    if rng.random() < 0.5:
        low, high = high, low
    grey = tone * (high - low) + low
    if not hard:
        grey *= _shading(rng)
    if rng.random() < 0.3:
        grey = cv2.GaussianBlur(grey, (0, 0), float(rng.uniform(0.4, 1.0)))
    sigma = float(rng.uniform(0.0, 4.0)) if hard else float(rng.uniform(1.0, 9.0))
    if sigma > 0.5:
        grey += _noise(rng) * sigma
    picture = np.clip(grey + 0.5, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        _sprinkle(picture, rng)
    quality = int(rng.integers(70, 96))
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _noise(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Float32 [640, 640], near normal, mean 0 and deviation 1: sums of bytes, several times faster than normals."""
    total = np.zeros((SIZE, SIZE), np.uint16)
    for _ in range(3):
        total += np.frombuffer(rng.bytes(SIZE * SIZE), np.uint8).reshape(SIZE, SIZE)
    return (total.astype(np.float32) - 382.5) / np.float32(73.9 * math.sqrt(3.0))


def _smooth_noise(rng: np.random.Generator, sigma: float) -> npt.NDArray[np.float32]:
    """Float32 [640, 640] of deviation about 1 that varies over `sigma` pixels."""
    raw = np.frombuffer(rng.bytes(SIZE * SIZE), np.uint8).reshape(SIZE, SIZE).astype(np.float32)
    smooth = cv2.GaussianBlur((raw - 127.5) / 73.9, (0, 0), sigma)
    # A Gaussian filter of width sigma leaves 1 / (2 sqrt(pi) sigma) of white noise's deviation.
    return np.asarray(smooth * np.float32(2.0 * math.sqrt(math.pi) * sigma), np.float32)


def _shading(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Float32 [1 or 640, 640] gains: a slow illumination profile and the line sensor's pixel stripes."""
    x = np.linspace(-1.0, 1.0, SIZE, dtype=np.float32)
    bow = 1.0 + float(rng.uniform(-0.1, 0.1)) * x - float(rng.uniform(0.0, 0.12)) * x**2
    stripes = rng.normal(0.0, float(rng.uniform(0.0, 0.02)), SIZE)
    gains = (bow + stripes).astype(np.float32)
    return gains[None, :] if rng.random() < 0.5 else np.repeat(gains[:, None], SIZE, axis=1)


def _sprinkle(picture: npt.NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Specks of one or two pixels in place: dust, which is no defect."""
    for x, y in rng.integers(0, SIZE - 2, (int(rng.integers(1, 40)), 2)):
        patch = picture[y : y + int(rng.integers(1, 3)), x : x + int(rng.integers(1, 3))]
        patch[:] = 255 - patch


def coco_document(boards: list[tuple[str, Board]]) -> dict[str, Any]:
    """COCO `instances` of (file name, board) pairs; image, annotation and category ids begin at 1."""
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
    """Boards 0 to count-1 of a series, in order, made in `workers` processes."""
    make = partial(generate, seed)
    if workers == 1:
        yield from map(make, range(count))
        return
    # Spawned: a process that is forked while another thread of a runtime holds a lock waits for it for ever.
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, fresh, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from pool.map(make, range(count), chunksize=8)


def write_set(out: Path, seed: int, count: int, workers: int) -> None:
    """Write a COCO set to the directory `out`, which is replaced only once all of it is there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        (aside / "images").mkdir()
        named: list[tuple[str, Board]] = []
        for index, board in enumerate(generate_many(seed, count, workers)):
            name = f"board_{seed}_{index:05d}.jpg"
            (aside / "images" / name).write_bytes(board.jpeg)
            # The pixels are on disk now; a large set would not fit in memory.
            labels_only = Board(np.zeros((0, 0, 3), np.uint8), board.boxes_xyxy, board.labels, b"")
            named.append((name, labels_only))
            _show_progress(index + 1, count)
        (aside / "instances.json").write_text(json.dumps(coco_document(named)), encoding="utf-8")
        aside.chmod(0o755)
        _replace(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    total = sum(len(board.labels) for _, board in named)
    print(f"{count} boards with {total} defects in {out}")


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


def _show_progress(done: int, count: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done} of {count} boards", end="\n" if done == count else "", file=sys.stderr, flush=True)
    elif done % 100 == 0:
        print(f"{done} of {count} boards", file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 or more, but got {text!r}")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number of 0 or more, but got {text!r}")
    return int(text)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True, help="directory to write; an earlier set in it is replaced")
    parser.add_argument("--count", type=_positive, default=500, help="number of boards (default: 500)")
    parser.add_argument("--seed", type=_seed, default=7, help="which series of boards (default: 7)")
    parser.add_argument(
        "--workers", type=_positive, default=os.cpu_count() or 1, help="processes (default: one for each core)"
    )
    arguments = parser.parse_args()
    if arguments.out.exists() and not arguments.out.is_dir():
        parser.error(f"--out {arguments.out} is a file; name a directory, it is made if need be")
    try:
        write_set(arguments.out, arguments.seed, arguments.count, arguments.workers)
    except OSError as error:
        parser.exit(1, f"{parser.prog}: cannot write {arguments.out}: {error}; choose another --out\n")


if __name__ == "__main__":
    main()
