"""`triptych detect`: send images to a server and show what it finds."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import cv2
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from triptych.client import DEFAULT_ADDRESS, DEFAULT_TIMEOUT_S, DetectionClient
from triptych.contract import MAX_BATCH
from triptych.detections import Detections
from triptych.errors import ImageError
from triptych.files import atomic_write
from triptych.vision.decode import image_files

IouThreshold = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, help="Of two boxes of a class that overlap more, drop the weaker. Default: the model's own."
    ),
]

_SHOW_PROGRESS_FROM = 4
"""Fewer images than this are done before a bar would have been read."""


def detect(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Image files; a directory stands for the images in it.")
    ],
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="The server's gRPC address.")] = DEFAULT_ADDRESS,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON list on standard output, and nothing else.")
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            file_okay=False,
            help="Write each picture with its boxes as DIR/<name>.jpg, in place of one from before. Images of the "
            "same name get <name>-2.jpg and so on, in the order given; no input is ever overwritten.",
        ),
    ] = None,
    score_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Drop what scores below. Default: the model's own.")
    ] = None,
    iou_threshold: IouThreshold = None,
    timeout: Annotated[
        float, typer.Option(min=0.001, metavar="SECONDS", help="How long to wait for each batch.")
    ] = DEFAULT_TIMEOUT_S,
    batch: Annotated[
        int, typer.Option(min=1, metavar="N", help="Images in one request, at most what the server takes.")
    ] = MAX_BATCH,
) -> None:
    """Detect objects in images.

    An image that cannot be read is shown with its reason; the others are done, and the exit code is 1 at the end.
    """
    paths = _expand(images)
    targets = save_paths(paths, save) if save else []
    started = time.perf_counter()
    results: list[Detections] = []
    try:
        with DetectionClient(address, timeout_s=timeout) as client, _progress(len(paths)) as advance:
            for start in range(0, len(paths), batch):
                found = client.detect_batch(
                    paths[start : start + batch], score_threshold=score_threshold, iou_threshold=iou_threshold
                )
                if save:
                    found = [_saved(*pair) for pair in zip(found, targets[start : start + batch], strict=True)]
                results += found
                advance(len(found))
    finally:
        # What was done before a server went away is still worth showing; half a JSON document is not.
        if not as_json and results:
            _show(results, time.perf_counter() - started)
    if as_json:
        typer.echo(json.dumps([result.to_dict() for result in results], ensure_ascii=False, indent=2))
    if any(result.error for result in results):
        raise typer.Exit(1)


def save_paths(images: Sequence[Path], directory: Path) -> list[Path]:
    """Where the picture of each image goes: `<stem>.jpg`, or `<stem>-2.jpg` and so on where that is taken.

    Taken is what an earlier image of the same run has got, and what is one of the images itself.
    """
    taken = {image.resolve() for image in images}
    targets = []
    for image in images:
        target, number = directory.resolve() / f"{image.stem}.jpg", 1
        while target in taken:
            number += 1
            target = target.with_name(f"{image.stem}-{number}.jpg")
        taken.add(target)
        targets.append(directory / target.name)
    return targets


def _expand(images: Iterable[Path]) -> list[Path]:
    """The images themselves; a directory gives those in it, in the order of their names."""
    paths: list[Path] = []
    for image in images:
        if not image.is_dir():
            paths.append(image)
        elif found := image_files(image):
            paths += found
        else:
            raise typer.BadParameter(f"there are no images in {image}", param_hint="IMAGE")
    return paths


@contextmanager
def _progress(images: int) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal; gives the function that moves it on by so many images."""
    columns = (TextColumn("detecting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    shown = console.is_terminal and images >= _SHOW_PROGRESS_FROM
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        yield partial(progress.advance, progress.add_task("detecting", total=images))


def _saved(found: Detections, target: Path) -> Detections:
    """Write the picture; what kept it from being written becomes the image's error."""
    if found.error or found.source is None:
        return found
    try:
        _write_jpeg(found, found.source, target)
    except ImageError as error:
        return Detections.failed(str(error), found.class_names, found.source)
    return found


def _write_jpeg(found: Detections, source: str, target: Path) -> None:
    picture = cv2.cvtColor(found.draw(source), cv2.COLOR_RGB2BGR)
    encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
    try:
        with atomic_write(target) as aside:
            aside.write_bytes(encoded)
    except OSError as error:
        raise ImageError(f"{target} cannot be written: {error.strerror}") from error


def _show(results: Sequence[Detections], seconds: float) -> None:
    table = Table("image", "class", "score", "box (x1 y1 x2 y2)")
    table.columns[0].overflow = "fold"
    table.columns[2].justify = table.columns[3].justify = "right"
    for result in results:
        source = Text(result.source or "")
        if result.error:
            table.add_row(source, Text(result.error, style="red"))
        elif not len(result):
            table.add_row(source, Text("nothing found", style="dim"))
        for index, found in enumerate(result):
            box = " ".join(f"{value:.0f}" for value in found.box_xyxy)
            table.add_row(source if index == 0 else "", Text(found.name), f"{found.score:.2f}", box)
        table.add_section()
    console = Console()
    console.print(table)
    console.print(Text(summary(results, seconds)), soft_wrap=True)


def summary(results: Sequence[Detections], seconds: float) -> str:
    """One line: how many images, how many objects of which classes, how many images failed, how long it took."""
    classes = Counter(name for result in results for name in result.names)
    failed = sum(bool(result.error) for result in results)
    objects = f"{_count(sum(classes.values()), 'object')}"
    if classes:
        objects += f" ({', '.join(f'{count} {name}' for name, count in classes.most_common())})"
    parts = [_count(len(results), "image"), objects, *([f"{failed} failed"] if failed else []), f"{seconds:.2f} s"]
    return ", ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
