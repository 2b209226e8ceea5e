"""`triptych models` and `triptych activate`: the published versions of the detector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from triptych.cli.options import DEFAULT_REPOSITORY, Access, AsJson, ModelRepository, grouped
from triptych.errors import BuildError
from triptych.serving import repository


def models(model_repository: ModelRepository = DEFAULT_REPOSITORY, as_json: AsJson = False) -> None:
    """List the published versions of the detector."""
    published = repository.versions(model_repository)
    if not published:
        raise BuildError(f"{model_repository} has no published detector; publish one with `triptych build MODEL.onnx`")
    if as_json:
        typer.echo(json.dumps([_as_json(version) for version in published], indent=2))
    else:
        Console().print(_table(published))


@grouped
def activate(
    access: Access,
    version: Annotated[int, typer.Argument(help="The version to serve; `triptych models` lists them.")],
    model_repository: ModelRepository = DEFAULT_REPOSITORY,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="A running server that is to switch over now.")
    ] = None,
) -> None:
    """Serve another version of the detector, an older or a newer one.

    Exit codes: 0 it is served, 1 it cannot be served, 3 no server answers at the address. After 1 and 3 the version
    from before is still served.
    """
    repository.activate(model_repository, version, address, access.credentials())
    if address is None:
        message = f"version {version} is served from the next start; a running server switches with --address"
    else:
        message = f"{address} serves version {version}"
    Console(highlight=False, soft_wrap=True).print(message)


def _table(published: list[repository.Version]) -> Table:
    # Narrow: at 80 columns nothing but a file's name is broken over lines.
    headings = ("version", "served", "source", "head", "precision", "target", "published (UTC)", "MB")
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in headings:
        table.add_column(heading, no_wrap=heading != "source", overflow="fold")
    for version in published:
        adapted = version.manifest.get("adapted")
        adapted = adapted if isinstance(adapted, dict) else {}
        table.add_row(
            str(version.number),
            "yes" if version.is_served else "",
            *(str(adapted.get(field, "?")) for field in ("source", "head")),
            *(str(version.manifest.get(field, "?")) for field in ("precision", "target")),
            str(version.manifest.get("published", "?"))[:16].replace("T", " "),
            f"{_bytes(version.directory) / 1e6:.1f}",
        )
    return table


def _as_json(version: repository.Version) -> dict[str, Any]:
    return {
        "version": version.number,
        "served": version.is_served,
        "bytes": _bytes(version.directory),
        "manifest": version.manifest,
    }


def _bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
