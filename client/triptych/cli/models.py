"""`triptych models` and `triptych activate`: the published versions of the detector."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from triptych.errors import BuildError
from triptych.serving import repository

Repository = Annotated[Path, typer.Option(help="The model repository.")]


def models(model_repository: Repository = repository.DEFAULT_REPOSITORY) -> None:
    """List the published versions of the detector."""
    found = repository.versions(model_repository)
    if not found:
        raise BuildError(f"{model_repository} has no published detector; publish one with `python build MODEL.onnx`")
    table = Table("version", "served", "source", "head", "precision", "target", "published (UTC)", "MB")
    table.columns[2].overflow = "fold"
    for version in found:
        adapted: dict[str, Any] = version.manifest.get("adapted", {})
        size = sum(path.stat().st_size for path in version.directory.rglob("*") if path.is_file())
        table.add_row(
            str(version.number),
            "yes" if version.is_served else "",
            *(str(adapted.get(field, "?")) for field in ("source", "head")),
            *(str(version.manifest.get(field, "?")) for field in ("precision", "target")),
            str(version.manifest.get("published", "?"))[:16].replace("T", " "),
            f"{size / 1e6:.1f}",
        )
    Console().print(table)


def activate(
    version: Annotated[int, typer.Argument(help="The version to serve; `triptych models` lists them.")],
    model_repository: Repository = repository.DEFAULT_REPOSITORY,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="A running server that is to switch over now.")
    ] = None,
) -> None:
    """Serve another version of the detector: back to an older one, or forth again."""
    repository.activate(model_repository, version, address)
    console = Console(highlight=False, soft_wrap=True)
    if address is None:
        console.print(f"version {version} is served from the next start; a running server switches with --address")
    else:
        console.print(f"{address} serves version {version}")
