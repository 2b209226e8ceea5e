"""`triptych export`: what Ultralytics wrote, into what Triptych takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from triptych.cli.options import Size
from triptych.files import atomic_write


def export(
    source: Annotated[Path, typer.Argument(metavar="BEST.pt", help="A checkpoint of Ultralytics, or an .engine.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where a checkpoint's ONNX goes, or an engine's bare plan.")
    ] = None,
    size: Annotated[
        Size | None,
        typer.Option(parser=Size.parse, metavar="WxH", help="Size to export a checkpoint with. Default: its own."),
    ] = None,
    names_out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where an engine's class names go, one a line.")
    ] = None,
) -> None:
    """Export a checkpoint to ONNX with your own Ultralytics, or split an engine from its header."""
    from triptych_build.ultralytics import ENGINES

    suffix = source.suffix.lower()
    if suffix in ENGINES:
        if size:
            raise typer.BadParameter("an engine keeps its size; it is for a checkpoint", param_hint="--size")
        _split(source, out, names_out)
    elif suffix == ".pt":
        if out is None:
            raise typer.BadParameter("a checkpoint needs a place for its ONNX", param_hint="--out")
        if names_out:
            raise typer.BadParameter("a checkpoint's ONNX has the names; it is for an engine", param_hint="--names-out")
        _export(source, out, size)
    else:
        raise typer.BadParameter(f"expected a .pt, or an .engine, but got {source.name}", param_hint="BEST.pt")


def _export(checkpoint: Path, out: Path, size: Size | None) -> None:
    from triptych_build import ultralytics

    typer.echo(f"export: {checkpoint.name} is exported by your own Ultralytics ({ultralytics.exporter()})")
    ultralytics.export(checkpoint, out, size)
    typer.echo(f"export: {out}")


def _split(engine: Path, out: Path | None, names_out: Path | None) -> None:
    from triptych_build.ultralytics import engine_names, split_engine, write_plan

    metadata, offset = split_engine(engine)
    if out:
        write_plan(engine, out)
        typer.echo(f"export: {out} is the bare plan, without {offset} bytes of header")
    for line in _describe(metadata):
        typer.echo(line)
    if names_out:
        names = engine_names(engine)
        with atomic_write(names_out) as aside:
            aside.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        typer.echo(f"        {len(names)} class names in {names_out}")


def _describe(metadata: dict[str, Any]) -> list[str]:
    return [f"        {key}: {metadata.get(key, 'unknown')}" for key in ("task", "imgsz", "batch", "date", "names")]
