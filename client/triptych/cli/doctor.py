"""`triptych doctor`: what would not load, and why."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from triptych.cli.console import REFUSED
from triptych.cli.options import DEFAULT_REPOSITORY, Access, AsJson, ModelRepository, grouped
from triptych.serving.doctor import Finding, worst
from triptych.serving.doctor.findings import Severity
from triptych.serving.doctor.gathering import describe_machine, diagnose

STYLES: dict[Severity, str] = {
    "ok": "green",
    "warning": "yellow",
    "not to be served": "bold red",
    "will not load": "bold red",
}


@grouped
def doctor(
    access: Access,
    model_repository: ModelRepository = DEFAULT_REPOSITORY,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="The running server that is to load the versions. Default: this machine."
        ),
    ] = None,
    verified: Annotated[
        bool,
        typer.Option(
            "--verified",
            help="Look at the version alone that is served, and refuse it too if no gate has passed this very file on "
            "this kind of GPU: for what runs before a server starts.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the published versions with what would load them, and say what will not load and why.

    Exit codes: 0 nothing is worse than a warning, 1 something will not load or is not to be served, 3 no server answers
    at the address.
    """
    findings = diagnose(model_repository, address, verified=verified, credentials=access.credentials())
    if as_json:
        document = {"worst": worst(findings), "findings": list(map(asdict, findings)), "machine": describe_machine()}
        typer.echo(json.dumps(document, indent=2))
    else:
        _print(findings)
    if worst(findings) not in ("ok", "warning"):
        raise typer.Exit(REFUSED)


def _print(findings: list[Finding]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        label = Text(f"{finding.severity:<17}", STYLES[finding.severity])
        console.print(Text.assemble(label, (f"{finding.subject}: ", "bold"), str(finding)))
