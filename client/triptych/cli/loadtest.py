"""`triptych loadtest`: what clients wait for, and who takes that time, over exactly the same window."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

import typer
from rich.console import Console
from rich.text import Text

from triptych.cli.console import REFUSED
from triptych.cli.options import DEFAULT_ADDRESS, Access, Address, AsJson, BudgetMs, Sizes, grouped
from triptych.errors import ContractError
from triptych.measure import remarks, run_file
from triptych.measure.attribution import Headroom, owner_sentence
from triptych.measure.footprint import footprint_sentence
from triptych.measure.remarks import BUDGET_AT
from triptych.measure.run_file import Run
from triptych.measure.scenario import DEFAULT_BUDGET_MS, ScenarioName
from triptych.measure.window import Window, batch_sentence, summary_line
from triptych_loadtest.limits import Limits, broken_limits
from triptych_loadtest.load_test import LoadTest
from triptych_loadtest.scenarios import carry_out, check_load
from triptych_loadtest.shapes import Shape


@dataclass(frozen=True)
class LoadOptions:
    """What is asked of the server; the fields are called as in `LoadTest`."""

    PANEL: ClassVar[str] = "Load"

    images: Annotated[Path, typer.Option(metavar="DIR", help="Images to send, in turn.")]
    address: Address = DEFAULT_ADDRESS
    users: Annotated[int, typer.Option(metavar="N", help="Users that each wait for their answer, or cameras.")] = 4
    rate_per_s: Annotated[
        float, typer.Option("--rate", metavar="N", help="Open loop: requests a second, whatever the answers do.")
    ] = 0
    poisson: Annotated[bool, typer.Option("--poisson", help="With --rate: random gaps, exponentially distributed.")] = (
        False
    )
    fps: Annotated[float, typer.Option(metavar="N", help="Users are cameras that send N frames a second each.")] = 0
    shape: Annotated[Shape, typer.Option(help="How the load changes over the time: of users, or of the rate.")] = (
        "constant"
    )
    batch: Annotated[int, typer.Option(metavar="N", help="Images in a request.")] = 1
    sizes_wh: Annotated[
        Sizes | None,
        typer.Option(
            "--sizes",
            parser=Sizes.parse,
            metavar="WxH,…",
            help="Scale each image to each of these sizes, in turn. Default: send it as it is.",
        ),
    ] = None
    processes: Annotated[
        int, typer.Option(metavar="N", help="Processes that share the load; more where one is too slow.")
    ] = 1
    seed: Annotated[
        int,
        typer.Option(metavar="N", help="Of the cameras' phases and of --poisson's gaps. Default: others each time."),
    ] = 0


@dataclass(frozen=True)
class MeasurementOptions:
    """How it is measured; the fields are called as in `LoadTest`."""

    PANEL: ClassVar[str] = "Measurement"

    warmup_s: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long the load goes on before anything counts.")
    ] = 2
    duration_s: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="How long it is measured. Default: 10; with --scenario as long as MLPerf's rules demand, 600 or more.",
        ),
    ] = None
    intervals: Annotated[
        int, typer.Option(metavar="N", help="Parts of that time, which the page shows one after the other.")
    ] = 10
    traces: Annotated[
        bool, typer.Option("--traces/--no-traces", help="Switch the server's traces on, which explain the percentiles.")
    ] = True
    model_repository: Annotated[
        Path | None, typer.Option(metavar="DIR", help="What the server serves, for the detector's manifest.")
    ] = None


@dataclass(frozen=True)
class LimitOptions:
    """What the run may show at worst; the fields are called as in `Limits`."""

    PANEL: ClassVar[str] = "Limits"

    budget_ms: BudgetMs = None
    max_p95_ms: Annotated[float | None, typer.Option(metavar="MS", help="Exit 1 if the p95 is above.")] = None
    max_p99_ms: Annotated[float | None, typer.Option(metavar="MS", help="Exit 1 if the p99 is above.")] = None
    max_failures: Annotated[int, typer.Option(metavar="N", help="Exit 1 if more requests failed.")] = 0
    min_rate_per_s: Annotated[
        float | None, typer.Option("--min-rate", metavar="N", help="Exit 1 if fewer requests a second were answered.")
    ] = None


@grouped
def loadtest(
    load: LoadOptions,
    measurement: MeasurementOptions,
    limits: LimitOptions,
    access: Access,
    scenario: Annotated[
        ScenarioName | None,
        typer.Option(
            help="Measure by this scenario of MLPerf: its load, its length, its one figure. For server, --budget-ms is "
            f"the bound of the p99 (default: {DEFAULT_BUDGET_MS:g}), and --rate the rate; without it, the highest is "
            "searched."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Write the run to this JSON file, and its page next to it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send images as many users would, and say who takes the time that they wait.

    --users sends the next request when the answer is there; --rate and --fps send on time, whatever the answers do.

    Exit code 1: a request failed, or a limit was broken.
    """
    from triptych import report as reports

    asked = vars(load) | vars(measurement) | {"sizes_wh": load.sizes_wh or ()}
    if measurement.duration_s is None:
        del asked["duration_s"]
    try:
        test = LoadTest(**asked, credentials=access.credentials())
        if scenario:
            check_load(scenario, test)
        page = reports.page_path(out) if out else None
    except ContractError as error:
        raise typer.BadParameter(str(error)) from error
    _import_locust_first()

    from triptych_loadtest.runner import run

    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    command, quiet = ["triptych", "loadtest", *sys.argv[1:]], Console(stderr=True, highlight=False)
    if scenario:
        measured = []

        def measure(test: LoadTest) -> Run:
            measured.append(run(test, command, quiet))
            return measured[-1][0]

        say = partial(quiet.print, markup=False)
        result = carry_out(scenario, test, measurement.duration_s, limits.budget_ms, measure, say)
        window, limits = measured[-1][1], replace(limits, budget_ms=None)
    else:
        result, window = run(test, command, quiet)
    print_run(result, window, limits.budget_ms, console)
    if out and page:
        run_file.write(out, result)
        reports.write(page, reports.html(reports.of_run(result, out.stem, limits.budget_ms)))
        console.print(f"written to {out} and {page}", markup=False)
    if as_json:
        typer.echo(remarks.to_json(result))
    broken = broken_limits(Limits(**vars(limits)), result, window)
    for sentence in broken:
        console.print(Text.assemble(("limit broken: ", "red"), sentence))
    if broken or (result.scenario and result.scenario.problem):
        raise typer.Exit(REFUSED)


def _import_locust_first() -> None:
    """Start this command again in a process that imports Locust before all else, unless it runs in one.

    Locust patches the standard library for gevent as it is imported. The process keeps its id, so that whoever
    started it can stop it.
    """
    if "locust" not in sys.modules:
        arguments = sys.argv[sys.argv.index("loadtest", 1) + 1 :]
        os.execv(sys.executable, [sys.executable, "-m", "triptych_loadtest", *arguments])  # noqa: S606


def print_run(run: Run, window: Window, budget_ms: float | None, console: Console) -> None:
    """Print what the run showed."""
    from triptych.report.terminal import attribution_table

    attribution, client = run.attribution, run.client
    if run.scenario:
        console.print(Text(run.scenario.sentence, "bold"))
    console.print(summary_line(window))
    if run.workload.batch > 1:
        images_per_s = client.rate_per_s * run.workload.batch
        console.print(f"  {run.workload.batch} images a request: {images_per_s:.1f} images/s")
    for name, latencies in sorted(client.by_request.items()):
        p50, p95 = latencies.percentile_ms(50), latencies.percentile_ms(95)
        console.print(f"  {name}: {latencies.count} requests, p50 {p50:.1f} ms, p95 {p95:.1f} ms")
    console.print(attribution_table(attribution), soft_wrap=False)
    for at, breakdown in attribution.breakdowns.items():
        console.print(owner_sentence(breakdown, at))
    if budget_ms and window.latencies_ms:
        console.print(Headroom(budget_ms, window.percentile_ms(BUDGET_AT)).sentence(f"p{BUDGET_AT}"))
    if sentence := batch_sentence(run.server):
        console.print(sentence)
    if run.footprint:
        console.print(footprint_sentence(run.footprint))
    for remark in remarks.of_run(run):
        console.print(str(remark), style="yellow", markup=False)
    for kind, failure in client.failures.items():
        console.print(Text.assemble((f"{failure.count} failed: ", "red"), f"{kind}: {failure.example}"))
