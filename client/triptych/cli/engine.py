"""`triptych engine`: a TensorRT plan from an adapted ONNX."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer
from rich.console import Console

from triptych.cli.options import Precision, Words, grouped
from triptych.errors import BuildError
from triptych_build.tensorrt.options import Builder, Hardware, Options, Profile


def parse_profile(text: str) -> Profile:
    """Read `1,8,16` as min, opt and max, or `4` as a fixed batch.

    Raises:
        typer.BadParameter: it is neither, or the three are out of order.
    """
    parts = text.split(",")
    if len(parts) not in (1, 3) or not all(part.strip().isdecimal() for part in parts):
        raise typer.BadParameter(f"expected min,opt,max such as 1,8,16, or one fixed batch, but got {text!r}")
    sizes = [int(part) for part in parts] * (3 if len(parts) == 1 else 1)
    try:
        return Profile(*sizes)
    except BuildError as error:
        raise typer.BadParameter(str(error)) from error


@dataclass(frozen=True)
class EngineOptions:
    """How TensorRT builds a plan."""

    PANEL: ClassVar[str] = "TensorRT"

    profile: Annotated[
        list[Profile] | None,
        typer.Option(
            parser=parse_profile,
            metavar="MIN,OPT,MAX",
            help=f"Batch sizes, or one fixed; repeat it for several profiles. Default: {Profile()}.",
        ),
    ] = None
    workspace_mib: Annotated[int | None, typer.Option(min=1, metavar="MIB", help="Most scratch memory of a layer.")] = (
        None
    )
    timing_cache: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Remembers kernel timings between builds.")
    ] = None
    level: Annotated[int | None, typer.Option(min=0, max=5, metavar="0..5", help="Builder optimization level.")] = None
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="The plan loads in later versions of TensorRT too.")
    ] = False
    hardware: Annotated[Hardware, typer.Option(help="The plan loads on these other GPUs too; it may be slower.")] = (
        "none"
    )
    compute_capability: Annotated[
        Words | None,
        typer.Option(
            parser=Words.parse,
            metavar="X.Y,…",
            help=f"GPUs that TensorRT for RTX builds for. Default: {','.join(Options.compute_capabilities)}.",
        ),
    ] = None
    dla_core: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="A Jetson's DLA core; the GPU takes the rest.")
    ] = None

    def options(self, builder: Builder) -> Options:
        """Return them for a builder.

        Raises:
            typer.BadParameter: one means nothing to it.
        """
        try:
            return Options(
                builder,
                profiles=tuple(self.profile or Options.profiles),
                compute_capabilities=tuple(self.compute_capability or Options.compute_capabilities),
                **{name: value for name, value in vars(self).items() if name not in ("profile", "compute_capability")},
            )
        except BuildError as error:
            raise typer.BadParameter(str(error)) from error


@grouped
def engine(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An adapted ONNX; for int8, one with Q/DQ pairs.")],
    out: Annotated[Path, typer.Option(dir_okay=False, metavar="PLAN", help="The plan; its record goes next to it.")],
    engine: EngineOptions,
    precision: Annotated[Precision, typer.Option(help="What the plan calculates in.")] = "fp32",
    builder: Annotated[Builder, typer.Option(help="Whose library builds it; tensorrt-rtx needs no GPU.")] = "tensorrt",
) -> None:
    """Build a TensorRT plan from an adapted ONNX.

    Exit codes: 0 it is built, 1 it cannot be built, 2 the command line is wrong.
    """
    from triptych_build.tensorrt.engine import build, summary

    options = engine.options(builder)
    with Console(stderr=True).status(f"{builder} builds {precision}"):
        built = build(model, precision, out, options)
    typer.echo(summary(built, out))
