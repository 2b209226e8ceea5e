"""`triptych bulk`: any number of images to Parquet files of what a server finds in them, on Ray."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from triptych.cli.console import REFUSED, print_json
from triptych.cli.detect import in_words
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
from triptych.errors import TriptychError
from triptych.packages import install_command
from triptych.wire.credentials import Credentials

if TYPE_CHECKING:
    from triptych.bulk.job import Job
    from triptych.bulk.shard import Done


@grouped
def bulk(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DIR|URI",
            help="The images, with all folders within: a directory, or s3://, gs://, abfs://, hdfs://.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option("--out", metavar="DIR|URI", help="Where the Parquet files go; every machine must see it."),
    ],
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue where an earlier run of this command ended.")
    ] = False,
    address: Address = DEFAULT_ADDRESS,
    in_flight: Annotated[
        int,
        typer.Option(
            "--in-flight", min=1, metavar="N", help="Requests of a worker that are with the server at a time."
        ),
    ] = 2,
    batch: Annotated[
        int, typer.Option("--batch", min=1, metavar="N", help="Images in one request, at most what the server takes.")
    ] = MAX_BATCH,
    shard_images: Annotated[
        int,
        typer.Option(
            "--shard-images", min=1, metavar="N", help="Images of one Parquet file: what a lost machine costs."
        ),
    ] = 1000,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, metavar="N", help="Shards that are done at a time. Default: one for each machine."
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray", metavar="ADDRESS", envvar="RAY_ADDRESS", help="A Ray cluster, or `auto`. Default: start Ray here."
        ),
    ] = None,
    score_threshold: ScoreThreshold = None,
    iou_threshold: IouThreshold = None,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    retry_s: Annotated[
        float, typer.Option("--retry-s", min=0, metavar="SECONDS", help="How long to wait for a server that is gone.")
    ] = 300.0,
    as_json: AsJson = False,
    *,
    access: Access,
) -> None:
    """Detect objects in any number of images, on one machine or on a Ray cluster.

    Each image becomes one row: its objects, or the reason why it cannot be read; with one of these, the exit code is 1
    at the end. A shard of images becomes one Parquet file, which is whole or not there. If a machine is lost, another
    one begins its shard again. --resume does the shards that are missing.
    """
    try:
        from triptych.bulk import cluster, job
        from triptych.bulk.places import Place
        from triptych.bulk.shard import Settings
    except ImportError as error:
        raise TriptychError(f"bulk needs Ray and pyarrow ({error}): {install_command('bulk')}") from error

    credentials = _absolute(access.credentials())
    with DetectionClient(address, timeout_s=timeout_s, credentials=credentials) as client:
        client.spec()  # a server that is not there, or serves something else, is known now
    place, images = Place.of(out), Place.of(source)
    chosen = {"shard_images": shard_images, "score_threshold": score_threshold, "iou_threshold": iou_threshold}
    begun = job.begin(place, images, resume=resume, **chosen)
    shards = job.missing(place, begun)
    settings = Settings(images.text, place.text, address, credentials, timeout_s, retry_s, batch, in_flight)
    started, done = time.perf_counter(), []
    try:
        if shards:
            with cluster.connected(ray, workers) as count, _progress(len(shards)) as advance:
                for result in cluster.run(begun, settings, shards, count):
                    done.append(result)
                    advance(1)
    finally:
        if len(done) < len(shards):
            _note(f"{begun.shards - len(shards) + len(done)} of {begun.shards} shards are done; continue with --resume")
    if lost := job.missing(place, begun):
        raise TriptychError(
            f"{place.name} lacks shards that were done ({lost[:5]}…): does every machine see the same --out?"
        )
    failed = sum(result.failed for result in done)
    _print(begun, done, time.perf_counter() - started, place.name, as_json)
    if failed:
        raise typer.Exit(REFUSED)


def _print(begun: Job, done: Sequence[Done], seconds: float, out: str, as_json: bool) -> None:
    images, failed, cut_off = (
        sum(getattr(result, name) for result in done) for name in ("images", "failed", "truncated")
    )
    classes = sum((Counter(result.classes) for result in done), Counter[str]())
    before = begun.shards - len(done)
    if as_json:
        counts = {"images": images, "failed": failed, "truncated": cut_off, "classes": classes}
        print_json({**counts, "shards": len(done), "shards_before": before, "duration_s": seconds, "out": out})
        return
    console = Console(highlight=False, markup=False, soft_wrap=True)
    rate = f" ({images / seconds:.0f} images/s)" if images else ""
    console.print(in_words(images, classes, failed, seconds) + rate)
    earlier = f", {before} of them before" if before else ""
    console.print(f"{out} has {begun.images} images in {begun.shards} files{earlier}")
    if failed:
        console.print("why an image failed is in its row, in the column `error`", style="yellow")
    if cut_off:
        console.print(
            f"{cut_off} answers were cut off, see the column `truncated`: raise --score-threshold, or build the "
            "detector with more --candidates or --rows",
            style="yellow",
        )


def _note(text: str) -> None:
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(text)


@contextmanager
def _progress(shards: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on the terminal; give the function that moves it on by so many shards."""
    columns = (TextColumn("shards"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield partial(progress.advance, progress.add_task("shards", total=shards))


def _absolute(credentials: Credentials) -> Credentials:
    """Return the same for a process that stands in another folder."""
    given = {name: path for name, path in vars(credentials).items() if path and name != "server_name"}
    return replace(credentials, **{name: str(Path(path).absolute()) for name, path in given.items()})
