"""`triptych report`: what a load test measured, as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from triptych.errors import ContractError


def report(
    run: Annotated[Path, typer.Argument(help="What `python loadtest`, `triptych track` or `triptych sweep` wrote.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file. [default: beside the run]")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write it as Markdown too, for a pull request.")] = None,
    budget_ms: Annotated[
        float | None, typer.Option(metavar="MS", help="What an answer may take, held against the p95.")
    ] = None,
) -> None:
    """Turn a run or a sweep into one HTML file with its pictures and tables, which loads nothing from elsewhere."""
    if budget_ms is not None and budget_ms <= 0:
        raise ContractError(f"--budget-ms must be above 0 milliseconds, but is {budget_ms:g}")
    try:
        # Imported here because the other commands run without the packages of load tests.
        from triptych import report as reports
        from triptych.measure import run_file, sweep
    except ModuleNotFoundError as error:
        raise ContractError(
            f"a report needs the package {error.name}; install it with `pip install 'triptych[loadtest]'`"
        ) from error

    if sweep.is_sweep(run):
        page = reports.of_sweep(sweep.read(run), run.stem)
    else:
        page = reports.of_run(run_file.read(run), run.stem, budget_ms)
    written = [out or reports.beside(run)]
    reports.write(written[0], reports.html(page))
    if markdown:
        written.append(markdown)
        reports.write(markdown, reports.markdown(page))
    Console(highlight=False, soft_wrap=True).print(f"written to {' and '.join(map(str, written))}", markup=False)
