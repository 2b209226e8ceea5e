"""`triptych detect`: send images to a server and show what it finds."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from triptych.cli.console import REFUSED, print_json
from triptych.cli.options import (
    DEFAULT_ADDRESS,
    DEFAULT_TIMEOUT_S,
    Access,
    Address,
    AsJson,
    IouThreshold,
    ScoreThreshold,
    TimeoutS,
    grouped,
)
from triptych.client import DetectionClient
from triptych.contract import MAX_BATCH
from triptych.detections import Detections
from triptych.errors import DeadlineExceeded
from triptych.pictures import save as save_picture
from triptych.pictures import save_paths
from triptych.vision.decode import image_files

WIDEST_NAME = 30
"""A class name of so many characters is never broken over lines."""

_SHOW_PROGRESS_FROM = 4
"""Fewer images than this are done before a person could read a bar."""


@grouped
def detect(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Image files; a directory stands for the images in it.")
    ],
    address: Address = DEFAULT_ADDRESS,
    as_json: AsJson = False,
    save: Annotated[
        Path | None,
        typer.Option(
            "--save",
            metavar="DIR",
            file_okay=False,
            help="Write each picture with its boxes as DIR/<name>.jpg, in place of one from before. Images of the "
            "same name get <name>-2.jpg and so on, in the order given; no input is ever overwritten.",
        ),
    ] = None,
    score_threshold: ScoreThreshold = None,
    iou_threshold: IouThreshold = None,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    batch: Annotated[
        int, typer.Option("--batch", min=1, metavar="N", help="Images in one request, at most what the server takes.")
    ] = MAX_BATCH,
    *,
    access: Access,
) -> None:
    """Detect objects in images.

    An image that cannot be read is shown with its reason; the others are done, and the exit code is 1 at the end.
    """
    paths = _expand(images)
    targets = save_paths(paths, save) if save else []
    started = time.perf_counter()
    results: list[Detections] = []
    try:
        with (
            DetectionClient(address, timeout_s=timeout_s, credentials=access.credentials()) as client,
            _progress(len(paths)) as advance,
        ):
            for start in range(0, len(paths), batch):
                with _way_out(timeout_s, min(batch, len(paths))):
                    answers = client.detect_batch(
                        paths[start : start + batch], score_threshold=score_threshold, iou_threshold=iou_threshold
                    )
                if save:
                    answers = list(map(save_picture, answers, targets[start : start + batch]))
                results += answers
                advance(len(answers))
    finally:
        # What was done before a server went away is still worth showing; half a JSON document is not.
        if not as_json and results:
            _print(results, time.perf_counter() - started)
    if as_json:
        print_json([result.to_dict() for result in results])
    if any(result.error for result in results):
        raise typer.Exit(REFUSED)


def _expand(images: Iterable[Path]) -> list[Path]:
    """Return the images themselves; a directory gives those in it, in the order of their names."""
    paths: list[Path] = []
    for image in images:
        if not image.is_dir():
            paths.append(image)
        elif inside := image_files(image):
            paths += inside
        else:
            raise typer.BadParameter(f"there are no images in {image}", param_hint="IMAGE")
    return paths


@contextmanager
def _way_out(timeout_s: float, batch: int) -> Iterator[None]:
    """Say what helps where a detector is too slow for a request of so many images."""
    try:
        yield
    except DeadlineExceeded as error:
        smaller = f"send fewer images in a request than {batch} with --batch 1, or " if batch > 1 else ""
        words = f"{error}; {smaller}wait longer than {timeout_s:g} s with --timeout-s"
        raise DeadlineExceeded(words, error.code, error.details) from error


@contextmanager
def _progress(images: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on the terminal; give the function that moves it on by so many images."""
    columns = (TextColumn("detecting"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    shown = console.is_terminal and images >= _SHOW_PROGRESS_FROM
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        yield partial(progress.advance, progress.add_task("detecting", total=images))


def _print(results: Sequence[Detections], seconds: float) -> None:
    table = Table("image", "class", "score", "box (x1 y1 x2 y2)")
    table.columns[0].overflow = "fold"
    names = (name for result in results for name in result.names)
    table.columns[1].min_width = max((min(cell_len(name), WIDEST_NAME) for name in names), default=0)
    table.columns[2].justify = table.columns[3].justify = "right"
    for result in results:
        source = Text(result.source or "")
        if result.error:
            table.add_row(source, Text(result.error, style="red"))
        elif not len(result):
            table.add_row(source, Text("nothing found", style="dim"))
        for index, detection in enumerate(result):
            box = " ".join(f"{value:.0f}" for value in detection.box_xyxy)
            table.add_row(source if index == 0 else "", Text(detection.name), f"{detection.score:.2f}", box)
        table.add_section()
    console = Console()
    console.print(table)
    console.print(Text(summary(results, seconds)), soft_wrap=True)
    if warning := cut_off(results):
        console.print(Text(warning, style="yellow"), soft_wrap=True)


def summary(results: Sequence[Detections], seconds: float) -> str:
    """Return one line: how many images, how many objects of which classes, how many images failed, how long it took."""
    classes = Counter(name for result in results for name in result.names)
    return in_words(len(results), classes, sum(bool(result.error) for result in results), seconds)


def in_words(images: int, classes: Counter[str], failed: int, seconds: float) -> str:
    """Return the line of `summary` from its numbers."""
    objects = f"{_count(sum(classes.values()), 'object')}"
    if classes:
        objects += f" ({', '.join(f'{count} {name}' for name, count in classes.most_common())})"
    parts = [_count(images, "image"), objects, *([f"{failed} failed"] if failed else []), f"{seconds:.2f} s"]
    return ", ".join(parts)


def cut_off(results: Sequence[Detections]) -> str:
    """Say in a sentence how many images were cut off, and what to do; empty if none was."""
    names = sorted({name for result in results for name in result.truncated.names})
    if not names:
        return ""
    count = sum(bool(result.truncated) for result in results)
    images = "an image was" if count == 1 else f"{count} images were"
    return (
        f"{images} cut off, and may lack objects: raise --score-threshold, or build the detector with more "
        + " and ".join(f"--{name}" for name in names)
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
