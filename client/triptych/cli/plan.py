"""`triptych plan`: how many servers a rate takes, and what they cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from triptych.cli.compare import parse_percent
from triptych.cli.console import print_json
from triptych.cli.options import AsJson
from triptych.files import atomic_write
from triptych.measure import capacity, documents, planning, remarks, run_file, sweep_file
from triptych.measure.planning import Needs, Plan
from triptych.measure.run_file import Run


def plan(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A file of `triptych sweep`, or of a `triptych loadtest` near the limit."),
    ],
    rate: Annotated[float, typer.Option(min=0.001, metavar="N", help="Images a second, all servers together.")],
    p95_ms: Annotated[float, typer.Option(min=0.001, metavar="MS", help="What the p95 of their answers may be.")],
    headroom: Annotated[
        float,
        typer.Option(
            parser=parse_percent, metavar="PERCENT", help="What stays free of what a server bears: for bursts."
        ),
    ] = "20%",  # type: ignore[assignment]  # typer parses it
    spare: Annotated[
        int, typer.Option(min=0, metavar="N", help="Servers that may be lost without a loss: 1 for N+1.")
    ] = 0,
    price_per_hour: Annotated[
        float | None, typer.Option(min=0, metavar="PRICE", help="Of one server, in any currency.")
    ] = None,
    scaling: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            metavar="FILE",
            help="Write when to scale as NAME=VALUE lines: deploy/kubernetes reads them.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say how many servers like the measured one a rate takes within a latency, and what they cost.

    A sweep over --rates is the best ground. What does not show what a server bears is refused: failed requests, a load
    far from the limit, a load that changes.

    Exit codes: 0 there is a plan, 1 the file shows none, or no number of servers keeps the latency.
    """
    if headroom >= 100:
        raise typer.BadParameter("expected less than 100%, or nothing is left", param_hint="--headroom")
    needs = Needs(rate, p95_ms, headroom / 100, spare, price_per_hour)
    document = documents.read_either(run, run_file.FORMAT, sweep_file.FORMAT)
    if isinstance(document, Run):
        bears, weak = capacity.of_run(document, str(run), p95_ms), remarks.of_run(document)
    else:
        bears, weak = capacity.of_sweep(document, str(run), p95_ms), remarks.of_sweep(document)
    result = planning.plan(needs, bears)
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    for sentence in planning.sentences(result):
        console.print(sentence, markup=False)
    for assumption in result.assumptions:
        console.print(f"assuming that {assumption}", style="dim", markup=False)
    for remark in weak:
        console.print(str(remark), style="yellow", markup=False)
    if scaling:
        with atomic_write(scaling) as aside:
            aside.write_text(_scaling(result, run))
        console.print(f"written to {scaling}", markup=False)
    if as_json:
        print_json(documents.to_json(result) | {"remarks": documents.to_json(weak)})


def _scaling(result: Plan, run: Path) -> str:
    """Return the lines that kustomize makes a ConfigMap of; its values stay text there."""
    needs = result.needs
    return (
        f"# `triptych plan` from {run.name}: {needs.rate_per_s:g} images/s within {needs.p95_ms:g} ms\n"
        f"servers={result.servers}\n"
        f"inflight={result.scale_at_inflight:.2f}\n"
    )
