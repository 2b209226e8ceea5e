"""`triptych runtimes`: one detector on every runtime, side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from triptych.cli.adapt import AdaptOptions
from triptych.cli.options import AsJson, Words, grouped
from triptych.errors import BuildError
from triptych.files import atomic_write
from triptych.machine import available_cores
from triptych_build.compare.cases import Trial
from triptych_build.compare.report import Comparison, markdown, print_comparison
from triptych_build.compare.runtimes import RUNTIMES


class LabelledPlan(NamedTuple):
    """A TensorRT plan, and what the tables call it."""

    label: str
    path: Path

    @classmethod
    def parse(cls, text: str) -> LabelledPlan:
        """Read `TensorRT FP16=model.plan`.

        Raises:
            typer.BadParameter: the label or the file is missing.
        """
        label, _, path = text.partition("=")
        if not (label and path):
            raise typer.BadParameter(
                f'expected a label and a file such as "TensorRT FP16=model.plan", but got {text!r}'
            )
        return cls(label, Path(path))


@grouped
def runtimes(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The detector's ONNX, adapted or as exported.")],
    data: Annotated[Path, typer.Option(metavar="LABELS", help="Validation set: COCO JSON, YOLO data.yaml or folder.")],
    adapt: AdaptOptions,
    images: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the images of a COCO JSON lie.")] = None,
    only: Annotated[
        Words | None,
        typer.Option(
            "--runtimes",
            parser=Words.parse,
            metavar="A,B",
            help=f"These runtimes alone. Default: all of {','.join(RUNTIMES)}.",
        ),
    ] = None,
    int8: Annotated[
        Path | None, typer.Option(metavar="ONNX", help="The adapted model in int8 (Q/DQ pairs): two more rows.")
    ] = None,
    plan: Annotated[
        list[LabelledPlan] | None,
        typer.Option(
            parser=LabelledPlan.parse,
            metavar="LABEL=FILE",
            help='A TensorRT plan as one more row, such as "TensorRT FP16=model.plan"; may be repeated.',
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="CPU threads of every row. Default: all cores.")
    ] = None,
    frames: Annotated[
        int, typer.Option(min=2, metavar="N", help="Frames timed in each scenario, over all rounds.")
    ] = 250,
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="Turns of every row.")] = 5,
    out: Annotated[
        Path | None,
        typer.Option(file_okay=False, metavar="DIR", help="Write runtimes.json, runtimes.md and runtimes.svg there."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the runtimes on one detector: accuracy, size, load time, latency.

    Exit codes: 0 it is measured, 1 nothing could be measured, 2 the command line is wrong.
    """
    unknown = [name for name in only or () if name not in RUNTIMES]
    if unknown:
        raise typer.BadParameter(
            f"there is no runtime {unknown[0]!r}; choose from {', '.join(RUNTIMES)}", param_hint="--runtimes"
        )

    from triptych_build.compare.compare import compare_model

    try:
        trial = Trial(threads or available_cores(), frames, rounds)
    except BuildError as error:
        raise typer.BadParameter(str(error)) from error
    if out:
        _make_directory(out)
    with _progress() as progress:
        comparison = compare_model(
            model,
            data,
            trial,
            images=images,
            overrides=adapt.overrides(),
            int8=int8,
            plans=plan or (),
            runtimes=only or tuple(RUNTIMES),
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(asdict(comparison), indent=2))
    else:
        print_comparison(comparison, Console())
    if not comparison.measured:
        raise BuildError("no row could be measured; the reasons are above")
    if out:
        _write(comparison, out)
        typer.echo(f"runtimes.json, runtimes.md and runtimes.svg are in {out}", err=as_json)


@contextmanager
def _progress() -> Iterator[Callable[[str, int], None]]:
    """Show a bar on standard error; it takes the name of each step as it begins, and the number of steps."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None, completed=-1)
        yield lambda step, total: progress.update(task, description=step, total=total, advance=1)


def _make_directory(out: Path) -> None:
    """Make the directory now, so that no measurement is lost because it cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(f"cannot write to {out}: {error.strerror}; name another directory with --out") from error


def _write(comparison: Comparison, out: Path) -> None:
    from triptych_build.compare.plot import draw

    with atomic_write(out / "runtimes.json") as aside:
        aside.write_text(json.dumps(asdict(comparison), indent=2) + "\n")
    with atomic_write(out / "runtimes.md") as aside:
        aside.write_text(markdown(comparison))
    with atomic_write(out / "runtimes.svg") as aside:
        draw(comparison).savefig(aside, format="svg")
