"""`triptych loadtest`: what clients wait for, and who takes that time, over exactly the same window."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

import typer
from rich.console import Console
from rich.text import Text

from triptych.cli.console import REFUSED, interrupted_by_sigterm
from triptych.cli.options import DEFAULT_ADDRESS, Access, Address, AsJson, BudgetMs, Sizes, grouped
from triptych.errors import ContractError
from triptych.measure import remarks, run_file
from triptych.measure.attribution import Headroom, owner_sentence
from triptych.measure.footprint import footprint_sentence
from triptych.measure.power.figures import power_sentences
from triptych.measure.remarks import BUDGET_AT
from triptych.measure.run_file import Run
from triptych.measure.scenario import DEFAULT_BUDGET_MS, ScenarioName
from triptych.measure.window import batch_sentence, percentiles_line, summary_line
from triptych_loadtest.limits import Limits, broken_limits
from triptych_loadtest.load_test import LoadTest
from triptych_loadtest.scenarios import carry_out, check_load
from triptych_loadtest.shapes import Shape


@dataclass(frozen=True)
class LoadOptions:
    """What is asked of the server; the fields are called as in `LoadTest`."""

    PANEL: ClassVar[str] = "Load"

    images: Annotated[Path, typer.Option(metavar="DIR", help="Images to send, drawn at random.")]
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
        int | None,
        typer.Option(
            metavar="N",
            help="Of what is random: the order of the images, the cameras' phases, --poisson's gaps. "
            "Default: another each time; the run file has it.",
        ),
    ] = None


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
    metrics_url: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="The server's metrics, for what its GPUs take. Default: this machine's driver if it runs here, else "
            "http://HOST:8002/metrics.",
        ),
    ] = ""


@dataclass(frozen=True)
class LimitOptions:
    """What the run may show at worst; the fields are called as in `Limits`."""

    PANEL: ClassVar[str] = "Limits"

    budget_ms: BudgetMs = None
    max_p95_ms: Annotated[
        float | None,
        typer.Option(metavar="MS", help="Exit 1 if the p95 may be above: its bound is, or too few requests give one."),
    ] = None
    max_p99_ms: Annotated[float | None, typer.Option(metavar="MS", help="The same for the p99.")] = None
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

    given = vars(load) | vars(measurement) | {"sizes_wh": load.sizes_wh or ()}
    # What is not given has a default that is not the same each time, or not in each scenario.
    asked = {name: value for name, value in given.items() if value is not None}
    try:
        test = LoadTest(**asked, credentials=access.credentials())
        if scenario:
            check_load(scenario, test)
        page = reports.page_path(out) if out else None
    except ContractError as error:
        raise typer.BadParameter(str(error)) from error
    from triptych_loadtest.runner import run

    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    command, quiet = ["triptych", *sys.argv[1:]], Console(stderr=True, highlight=False)
    with interrupted_by_sigterm():
        if scenario:
            say, measure = partial(quiet.print, markup=False), partial(run, command=command, console=quiet)
            result = carry_out(scenario, test, measurement.duration_s, limits.budget_ms, measure, say)
            limits = replace(limits, budget_ms=None)
        else:
            result = run(test, command, quiet)
    print_run(result, limits.budget_ms, console)
    if out and page:
        run_file.write(out, result)
        reports.write(page, reports.html(reports.of_run(result, out.stem, limits.budget_ms)))
        console.print(f"written to {out} and {page}", markup=False)
    if as_json:
        typer.echo(remarks.to_json(result))
    broken = broken_limits(Limits(**vars(limits)), result)
    for sentence in broken:
        console.print(Text.assemble(("refused: ", "red"), sentence))
    if broken or (result.scenario and result.scenario.problem):
        raise typer.Exit(REFUSED)


def print_run(run: Run, budget_ms: float | None, console: Console) -> None:
    """Print what the run showed."""
    from triptych.report.terminal import attribution_table, power_table

    attribution, client = run.attribution, run.client
    if run.scenario:
        console.print(Text(run.scenario.sentence, "bold"))
    console.print(summary_line(client.latencies, client.seconds, client.dependence))
    if client.left_out:
        console.print(f"  {client.left_out}", style="yellow")
    if run.workload.batch > 1:
        images_per_s = client.rate_per_s * run.workload.batch
        console.print(f"  {run.workload.batch} images a request: {images_per_s:.1f} images/s")
    for name, latencies in sorted(client.by_request.items()):
        console.print(f"  {name}: {latencies.count} requests, {percentiles_line(latencies, client.dependence)}")
    console.print(attribution_table(attribution), soft_wrap=False)
    for at, breakdown in attribution.breakdowns.items():
        console.print(owner_sentence(breakdown, at))
    if budget_ms and client.latencies.count:
        console.print(Headroom(budget_ms, client.latencies.percentile_ms(BUDGET_AT)).sentence(f"p{BUDGET_AT}"))
    if sentence := batch_sentence(run.server):
        console.print(sentence)
    if run.footprint:
        console.print(footprint_sentence(run.footprint))
    if run.power and run.power.devices:
        console.print(power_table(run.power), soft_wrap=False)
        for sentence in power_sentences(run.power, run.images):
            console.print(sentence)
    for sentence in run.power.missing if run.power else ():
        console.print(f"power was not measured: {sentence}", style="dim", markup=False)
    for remark in remarks.of_run(run):
        console.print(str(remark), style="yellow", markup=False)
    for kind, failure in client.failures.items():
        console.print(Text.assemble((f"{failure.count} failed: ", "red"), f"{kind}: {failure.example}"))
