"""`triptych compare`: runs of load tests side by side, and whether a difference is more than chance."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from triptych.cli.console import REFUSED
from triptych.cli.options import AsJson, Words
from triptych.contract import DETECTOR
from triptych.errors import ContractError
from triptych.measure.limits import Limits
from triptych.measure.side_by_side import SideBySide, compare_files


def parse_percent(text: str) -> float:
    """Read `5%` or `5`.

    Raises:
        typer.BadParameter: it is neither.
    """
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = -1.0
    if not value >= 0:
        raise typer.BadParameter(f"expected a percentage of at least 0, such as 5%, but got {text!r}")
    return value


def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="A B [C…]", help="Run files; several of one side with commas: A1,A2,A3.")
    ],
    names: Annotated[
        Words | None,
        typer.Option(parser=Words.parse, metavar="A,B,…", help="What to call the sides. Default: their files' names."),
    ] = None,
    changed: Annotated[
        str, typer.Option(metavar="OWNER", help="What was exchanged: the owner that Amdahl's law is asked about.")
    ] = DETECTOR.name,
    out: Annotated[Path | None, typer.Option(dir_okay=False, metavar="PAGE", help="Write an HTML page.")] = None,
    markdown: Annotated[
        Path | None, typer.Option(dir_okay=False, metavar="FILE", help="Write it as Markdown, for a pull request.")
    ] = None,
    as_json: AsJson = False,
    max_p50_regression: Annotated[
        float | None,
        typer.Option(parser=parse_percent, metavar="PERCENT", help="Exit 1 if the p50 is longer by more, such as 5%."),
    ] = None,
    max_p90_regression: Annotated[
        float | None, typer.Option(parser=parse_percent, metavar="PERCENT", help="The same for the p90.")
    ] = None,
    max_p95_regression: Annotated[
        float | None, typer.Option(parser=parse_percent, metavar="PERCENT", help="The same for the p95.")
    ] = None,
    max_p99_regression: Annotated[
        float | None, typer.Option(parser=parse_percent, metavar="PERCENT", help="The same for the p99.")
    ] = None,
    max_rate_regression: Annotated[
        float | None,
        typer.Option(
            parser=parse_percent, metavar="PERCENT", help="Exit 1 if the requests a second are fewer by more."
        ),
    ] = None,
    min_speedup: Annotated[
        float | None, typer.Option(metavar="X", help="Exit 1 if the mean is not shown to be so many times as fast.")
    ] = None,
) -> None:
    """Compare each side with the first: what became faster, what Amdahl's law expected, what may be chance.

    A difference is told from chance by four runs or more of each side, with commas between them, that were measured in
    turn: A1, B1, A2, B2 and so on. Limits need them. A loss breaks its limit where its whole confidence interval does,
    and a speed-up is there where its whole interval is.

    Exit codes: 0 no limit is broken, 1 one is or cannot be judged, or the runs cannot be compared.
    """
    from triptych import report as reports

    if len(runs) < 2:
        raise typer.BadParameter("expected two runs or more: triptych compare A.json B.json", param_hint="A B [C…]")
    if names and len(names) != len(runs):
        raise typer.BadParameter(
            f"expected {len(runs)} names, one for each side, but got {len(names)}: {','.join(names)}"
        )
    percents = {
        "p50": max_p50_regression,
        "p90": max_p90_regression,
        "p95": max_p95_regression,
        "p99": max_p99_regression,
    }
    try:
        limits = Limits({at: it for at, it in percents.items() if it is not None}, max_rate_regression, min_speedup)
    except ContractError as error:
        raise typer.BadParameter(str(error), param_hint="--min-speedup") from error

    result = compare_files([[Path(path) for path in side.split(",")] for side in runs], names or (), changed, limits)

    _print(result, Console(stderr=as_json, highlight=False, soft_wrap=True))
    if as_json:
        typer.echo(result.to_json())
    if out or markdown:
        runs_shown = [side.run for side in result.sides]
        page = reports.of_comparisons(result.comparisons, runs_shown, [str(remark) for remark in result.remarks])
        if out:
            reports.write(out, reports.html(page))
        if markdown:
            reports.write(markdown, reports.markdown(page))
    if result.refusals:
        raise typer.Exit(REFUSED)


def _print(result: SideBySide, console: Console) -> None:
    from triptych.report.terminal import comparison_table, run_line

    for side in result.sides:
        console.print(Text.assemble((side.name, "bold"), f": {run_line(side.run)}"))
    console.print(comparison_table(result.comparisons), soft_wrap=False)
    for comparison in result.comparisons:
        start = f"{comparison.b}: " if len(result.comparisons) > 1 else ""
        console.print(Text(f"{start}{comparison.sentence}", "bold"))
        console.print(Text(f"{start}{comparison.prediction}"))
    for remark in result.remarks:
        console.print(Text(str(remark), "yellow"))
    for sentence in result.refusals:
        console.print(Text.assemble(("refused: ", "red"), sentence))
