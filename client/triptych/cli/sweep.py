"""`triptych sweep`: how much load the server bears, and what its settings change about that."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from triptych.client import DEFAULT_ADDRESS
from triptych.contract import MAX_BATCH
from triptych.errors import ContractError, ImageError
from triptych.measure import sweep as sweeps
from triptych.measure.sweep_runner import LoadTest, measure_all
from triptych.report.terminal import SweepProgress
from triptych.vision.decode import image_files
from triptych.wire.channel import check_address

USERS = "1,2,4,8,16"
"""The loads of a sweep that names none."""

SERVED = "served"
"""In a list of settings: what the server has anyway."""

Number = TypeVar("Number", int, float)


def sweep(
    images: Annotated[Path, typer.Option(metavar="DIR", help="Images to send, in turn.")],
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="The server's gRPC address.")] = DEFAULT_ADDRESS,
    users: Annotated[
        str | None, typer.Option(metavar="N,N,…", help=f"Users that each wait for their answer. [default: {USERS}]")
    ] = None,
    rates: Annotated[
        str | None, typer.Option(metavar="N,N,…", help="Open loop instead: requests a second, whatever the answers do.")
    ] = None,
    instances: Annotated[
        str,
        typer.Option(metavar="N,N,…", help=f"The detector's instance counts to compare; `{SERVED}`: as it has them."),
    ] = SERVED,
    batching_delay_us: Annotated[
        str,
        typer.Option(
            metavar="N,N,…",
            help="Delays of the detector's dynamic batching to compare, in microseconds; 0: it batches what waits "
            f"anyway; `{SERVED}`: as it does it.",
        ),
    ] = SERVED,
    budget_ms: Annotated[float | None, typer.Option(min=0.001, metavar="MS", help="What an answer may take.")] = None,
    at: Annotated[str, typer.Option(metavar="p50|p95|p99", help="The percentile that the budget holds for.")] = "p95",
    duration: Annotated[float, typer.Option(min=0.5, metavar="S", help="Seconds that each load is measured.")] = 5,
    warmup: Annotated[float, typer.Option(min=0, metavar="S", help="Seconds of each load before anything counts.")] = 1,
    batch: Annotated[int, typer.Option(min=1, max=MAX_BATCH, metavar="N", help="Images in a request.")] = 1,
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, metavar="SWEEP", help="A JSON file; its page goes beside it.")
    ] = None,
    keep_runs: Annotated[
        Path | None, typer.Option(file_okay=False, metavar="DIR", help="Keep the run file of each load test here.")
    ] = None,
) -> None:
    """Find the load that a server bears: the knee of its throughput, and the most within a latency budget.

    With --rates and --budget-ms, further rates between those given close in on the highest within the budget, to 5%.
    --instances and --batching-delay-us change the running server, which has its own settings back at the end.

    Exit codes: 0 it was measured, 1 it could not be, or no load keeps the budget.
    """
    try:
        # Imported here because the other commands run without the packages that only load tests need.
        from triptych import report as reports
    except ModuleNotFoundError as error:
        raise _missing(str(error.name)) from error
    if find_spec("locust") is None:
        raise _missing("locust")
    if users is not None and rates is not None:
        raise ContractError("--users and --rates are two sweeps; choose one: users that wait, or requests at a rate")
    if at not in sweeps.PERCENTILES:
        raise ContractError(f"--at must be one of {', '.join(sweeps.PERCENTILES)}, but is {at!r}")
    check_address(address)
    page = reports.beside(out) if out else None
    if not image_files(images):
        raise ImageError(f"there are no images in {images}")
    if rates is not None:
        loads = [sweeps.Load(rate_per_s=rate) for rate in parse_numbers("--rates", rates, float, 0.1)]
    else:
        loads = [
            sweeps.Load(users=count) for count in parse_numbers("--users", USERS if users is None else users, int, 1)
        ]
    settings = [
        sweeps.Setting(count, delay_us)
        for count in parse_settings("--instances", instances, 1)
        for delay_us in parse_settings("--batching-delay-us", batching_delay_us, 0)
    ]
    budget = sweeps.Budget(budget_ms, at) if budget_ms else None
    # Stopped in any way, we leave the server with its own settings.
    on_sigterm = signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="triptych-sweep-") as temporary:
        loadtest = LoadTest(address, images, duration, warmup, batch, keep_runs or Path(temporary))
        try:
            with SweepProgress(console, budget) as progress:
                measure_all(loadtest, settings, loads, budget, progress)
        finally:
            signal.signal(signal.SIGTERM, on_sigterm)
            # What was measured before a server went away, or somebody lost patience, is worth keeping.
            if loadtest.runs:
                result = loadtest.result(budget, at)
                for sentence in result.sentences:
                    console.print(sentence, markup=False)
                if out and page:
                    sweeps.write(out, result)
                    reports.write(page, reports.html(reports.of_sweep(result, out.stem)))
                    console.print(f"written to {out} and {page}", markup=False)
    if budget and all(series.best_within_budget is None for series in result.series):
        raise typer.Exit(1)


def _missing(package: str) -> ContractError:
    return ContractError(f"a sweep needs the package {package}; install it with `pip install 'triptych[loadtest]'`")


def parse_numbers(option: str, text: str, kind: Callable[[str], Number], lowest: float) -> list[Number]:
    """The numbers of a comma-separated list, each once, the smallest first.

    Raises:
        ContractError: one is none, or below `lowest`.
    """
    try:
        numbers = sorted({kind(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or not lowest <= numbers[0] <= numbers[-1] < float("inf"):
        what = "whole numbers" if kind is int else "numbers"
        raise ContractError(f"{option} must be {what} from {lowest:g} on, with commas between them, but is {text!r}")
    return numbers


def parse_settings(option: str, text: str, lowest: int) -> list[int | None]:
    """The numbers of a comma-separated list, which may hold `served`; that is None, and comes first.

    Raises:
        ContractError: as `parse_numbers`.
    """
    parts = [part.strip() for part in text.split(",")]
    numbers = [part for part in parts if part != SERVED]
    as_served: list[int | None] = [None] if len(numbers) < len(parts) else []
    return [*as_served, *(parse_numbers(option, ",".join(numbers), int, lowest) if numbers else [])]
