"""`triptych report`: what was measured, as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from triptych.cli.options import BudgetMs
from triptych.measure import documents, profile, run_file, sweep_file
from triptych.measure.profile import Profile
from triptych.measure.run_file import Run
from triptych.measure.sweep_file import Sweep


def report(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="A file that `triptych loadtest`, `triptych track`, `triptych sweep` or `triptych profile` wrote.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, metavar="PAGE", help="The HTML file. Default: next to the run.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(dir_okay=False, metavar="FILE", help="Write Markdown too, for a pull request.")
    ] = None,
    budget_ms: BudgetMs = None,
) -> None:
    """Turn a run, a sweep or a profile into one HTML file with its pictures and tables, which loads nothing else."""
    from triptych import report as reports

    document: Run | Sweep | Profile = documents.read_either(run, run_file.FORMAT, sweep_file.FORMAT, profile.FORMAT)
    if isinstance(document, Run):
        page = reports.of_run(document, run.stem, budget_ms)
    elif isinstance(document, Profile):
        page = reports.of_profile(document)
    else:
        page = reports.of_sweep(document, run.stem)
    written = [out or reports.page_path(run)]
    reports.write(written[0], reports.html(page))
    if markdown:
        written.append(markdown)
        reports.write(markdown, reports.markdown(page))
    Console(highlight=False, soft_wrap=True).print(f"written to {' and '.join(map(str, written))}", markup=False)
