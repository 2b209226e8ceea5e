"""`triptych sweep`: how much load the server bears, and what its settings change about that."""

from __future__ import annotations

import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from triptych.cli.compare import parse_percent
from triptych.cli.console import REFUSED, interrupted_by_sigterm
from triptych.cli.options import DEFAULT_ADDRESS, Access, Address, AsJson, Integers, Numbers, grouped
from triptych.contract import MAX_BATCH
from triptych.errors import ContractError, ImageError
from triptych.measure import remarks, sweep_file
from triptych.measure.sweep import Budget, LoadLevel, Percentile, Setting
from triptych.measure.sweep_file import Sweep
from triptych.measure.sweep_runner import LoadTests, measure_all
from triptych.vision.decode import image_files
from triptych.wire.channel import check_address

USERS = "1,2,4,8,16"
"""The loads of a sweep that names none."""

SERVED = "served"
"""In a list of settings: what the server has anyway."""


class Settings(tuple[int | None, ...]):
    """Values of a setting of the server, separated by commas, the smallest first; None, for `served`, comes first."""

    __slots__ = ()

    @classmethod
    def from_1(cls, text: str) -> Settings:
        """Read `served,1,2`.

        Raises:
            typer.BadParameter: a value is neither `served` nor a whole number from 1 on.
        """
        return cls._parse(text, 1)

    @classmethod
    def from_0(cls, text: str) -> Settings:
        """Read `served,0,500`.

        Raises:
            typer.BadParameter: a value is neither `served` nor a whole number from 0 on.
        """
        return cls._parse(text, 0)

    @classmethod
    def _parse(cls, text: str, lowest: int) -> Settings:
        values = {value.strip() for value in text.split(",")}
        numbers = values - {SERVED}
        if not all(number.isdecimal() and int(number) >= lowest for number in numbers):
            raise typer.BadParameter(
                f"expected whole numbers from {lowest} on, or `{SERVED}`, with commas between them, but got {text!r}"
            )
        return cls([*([None] if SERVED in values else ()), *sorted(map(int, numbers))])


@grouped
def sweep(
    access: Access,
    images: Annotated[Path, typer.Option(metavar="DIR", help="Images to send, in turn.")],
    address: Address = DEFAULT_ADDRESS,
    users: Annotated[
        Integers | None,
        typer.Option(
            parser=Integers.parse,
            metavar="N,…",
            help=f"Users that each wait for their answer. Default: {USERS}. With --fps, how many cameras to try first.",
        ),
    ] = None,
    rates: Annotated[
        Numbers | None,
        typer.Option(
            parser=Numbers.parse, metavar="N,…", help="Open loop instead: requests a second, whatever the answers do."
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(min=0.01, metavar="N", help="How many cameras of N frames/s each are the most within the budget."),
    ] = None,
    max_dropped: Annotated[
        float | None,
        typer.Option(
            parser=parse_percent,
            metavar="PERCENT",
            help="With --fps: how many of their frames may be dropped; less takes longer to show. Default: 1%.",
        ),
    ] = None,
    instances: Annotated[
        Settings,
        typer.Option(
            parser=Settings.from_1,
            metavar="N,…",
            help=f"The detector's instance counts to compare; `{SERVED}`: as it has them.",
        ),
    ] = SERVED,  # type: ignore[assignment]  # typer parses it
    max_queue_delay_us: Annotated[
        Settings,
        typer.Option(
            parser=Settings.from_0,
            metavar="N,…",
            help="How long the detector's dynamic batching may hold a request back for others to join, to compare; 0: "
            f"it batches what waits anyway; `{SERVED}`: as it is.",
        ),
    ] = SERVED,  # type: ignore[assignment]
    budget_ms: Annotated[
        float | None, typer.Option(min=0.001, metavar="MS", help="What an answer may take, held against --at.")
    ] = None,
    at: Annotated[Percentile, typer.Option(help="The percentile that the budget holds for.")] = "p95",
    duration_s: Annotated[float, typer.Option(min=0.5, metavar="SECONDS", help="How long each load is measured.")] = 5,
    warmup_s: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long each load goes on before anything counts.")
    ] = 1,
    seed: Annotated[int, typer.Option(min=1, metavar="N", help="Of the cameras' phases: they are not in step.")] = 1,
    batch: Annotated[int, typer.Option(min=1, max=MAX_BATCH, metavar="N", help="Images in a request.")] = 1,
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, metavar="SWEEP", help="Write a JSON file, and a page next to it.")
    ] = None,
    keep_runs: Annotated[
        Path | None, typer.Option(file_okay=False, metavar="DIR", help="Keep the run file of each load test here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find the load that a server bears: the knee of its throughput, and the most within a latency budget.

    With --rates and --budget-ms, the rates are tried up to the first beyond the budget, and others close in on the
    highest within it, to 5%. A rate is beyond it, too, where the latency grows while it is measured. With --fps and
    --budget-ms, numbers of cameras close in on the most whose frames keep the budget; a camera drops the frames that
    come while it waits for an answer. The answer is confirmed by a run of three times the duration, or longer: so long
    that the percentile, and the share of dropped frames, are shown to be within the budget with 99% confidence.
    --instances and --max-queue-delay-us change the running server, which has its own settings back at the end.

    Exit codes: 0 it was measured, 1 it could not be, or no load keeps the budget.
    """
    from triptych import report as reports
    from triptych.report.terminal import SweepProgress

    if rates and (users or fps):
        raise typer.BadParameter("--users and --rates are two sweeps: users that wait, or requests at a rate")
    if fps and (not budget_ms or len(users or ()) > 1):
        raise typer.BadParameter("--fps needs --budget-ms, and takes one number of --users, from which it searches")
    if max_dropped is not None and not fps:
        raise typer.BadParameter("--max-dropped is about the frames of cameras: give their --fps")
    try:
        check_address(address)
        page = reports.page_path(out) if out else None
    except ContractError as error:
        raise typer.BadParameter(str(error)) from error
    if not image_files(images):
        raise ImageError(f"there are no images in {images}")
    loads = [LoadLevel(rate_per_s=rate) for rate in rates or ()]
    loads = loads or [LoadLevel(count, fps=fps) for count in users or ((1,) if fps else Integers.parse(USERS))]
    settings = [Setting(count, delay_us) for count in instances for delay_us in max_queue_delay_us]
    max_share = (1.0 if max_dropped is None else max_dropped) / 100 if fps else None
    budget = Budget(budget_ms, at, max_share) if budget_ms else None
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)

    with nullcontext(keep_runs) if keep_runs else tempfile.TemporaryDirectory(prefix="triptych-sweep-") as directory:
        load_tests = LoadTests(
            address, images, duration_s, warmup_s, batch, Path(directory), seed, access.credentials()
        )
        try:
            with interrupted_by_sigterm(), SweepProgress(console, budget) as progress:
                measure_all(load_tests, settings, loads, budget, progress)
        finally:
            # What was measured before a server went away, or somebody lost patience, is worth keeping.
            if load_tests.runs:
                result = load_tests.result(budget, at, ["triptych", *sys.argv[1:]])
                _hand_over(result, out, page, as_json, console)
    if budget and all(series.best_within_budget is None for series in result.series):
        raise typer.Exit(REFUSED)


def _hand_over(result: Sweep, out: Path | None, page: Path | None, as_json: bool, console: Console) -> None:
    """Print a sweep and write its files."""
    from triptych import report as reports

    for sentence in result.sentences:
        console.print(sentence, markup=False)
    for remark in remarks.of_sweep(result):
        console.print(str(remark), style="yellow", markup=False)
    if as_json:
        typer.echo(remarks.to_json(result))
    if out and page:
        sweep_file.write(out, result)
        reports.write(page, reports.html(reports.of_sweep(result, out.stem)))
        console.print(f"written to {out} and {page}", markup=False)
