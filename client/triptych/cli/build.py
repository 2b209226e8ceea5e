"""`triptych build`: from a trained detector to verified, published engines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, get_args

import typer
from rich.console import Console
from rich.table import Table

from triptych.cli.adapt import AdaptOptions
from triptych.cli.engine import EngineOptions
from triptych.cli.options import Access, AsJson, Precision, Words, grouped
from triptych.cli.publish import PublishOptions
from triptych.cli.quantize import QuantizeOptions
from triptych.cli.verify import GateOptions
from triptych.errors import BuildError
from triptych_build.built import Built, refusal, remarks
from triptych_build.cache import DEFAULT_CACHE
from triptych_build.publish.target import TARGETS

PRECISIONS: tuple[str, ...] = get_args(Precision)


@grouped
def build(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="The detector: an ONNX, or a .pt for your own Ultralytics to export."),
    ],
    adapt: AdaptOptions,
    quantize: QuantizeOptions,
    engine: EngineOptions,
    gate: GateOptions,
    publish: PublishOptions,
    precision: Annotated[
        Words | None,
        typer.Option(
            parser=Words.parse, metavar="A,B", help=f"Of {', '.join(PRECISIONS)}: a version for each. Default: fp32."
        ),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(metavar="ONNX", help="The FP32 model to verify a quantized MODEL against.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Publish what the gate refuses, too.")] = False,
    cache: Annotated[
        Path, typer.Option(file_okay=False, metavar="DIR", help="Where what is made is kept for next time.")
    ] = DEFAULT_CACHE,
    as_json: AsJson = False,
    *,
    access: Access,
) -> None:
    """Build a detector: adapt, quantize, build, verify and publish it, each step only if it was not done before.

    Each precision becomes a version of its own, if it passes the gate. The fastest that passed is served. Each step
    is also a command: adapt, quantize, engine, verify, publish.

    Exit codes: 0 all is published, 1 a step failed or the gate refused a precision, 2 the command line is wrong, 3 no
    server answers at the address.
    """
    precisions = tuple(precision or ("fp32",))
    unknown = [name for name in precisions if name not in PRECISIONS]
    if unknown:
        raise typer.BadParameter(
            f"there is no precision {unknown[0]!r}; choose from {', '.join(PRECISIONS)}", param_hint="--precision"
        )
    builder = TARGETS[publish.target].builder
    plan_options = engine.options(builder or "tensorrt")

    from triptych_build.line import Line, LineOptions

    options = LineOptions(
        model=model,
        precisions=precisions,
        reference=reference,
        overrides=adapt.overrides(),
        calibration=quantize.calibration() if {"int8", "fp16"}.intersection(precisions) else None,
        min_int8_share=quantize.min_int8_share,
        engine=plan_options,
        data=gate.data,
        images=gate.images,
        gates={name: gate.gate(name) for name in precisions},
        target=publish.target,
        repository=publish.model_repository,
        group=publish.group(),
        keep=publish.keep,
        address=publish.server(),
        credentials=access.credentials(),
        force=force,
        cache=cache,
    )
    built = Line(options, lambda line: typer.echo(line, err=as_json)).run()
    if as_json:
        typer.echo(json.dumps([one.to_dict() for one in built], indent=2))
    else:
        _print_summary(built)
    refused = refusal(built, force=force)
    if refused and not force:
        raise BuildError(refused)
    if refused:
        typer.echo(f"verify: {refused}", err=as_json)


def _print_summary(built: Sequence[Built]) -> None:
    """Print a row for each precision, and a remark where int8 is not worth it."""
    has_labels = all(one.report.get("truth", "labels") == "labels" for one in built if one.report)
    table = Table("precision", "MB", "mAP50-95" if has_labels else "agreement", "p50 ms", "gate", "version")
    for column in table.columns[1:4]:
        column.justify = "right"
    for one in built:
        figures = ("", "")
        if one.report:
            figures = (f"{one.map50_95:.2f}", f"{one.p50_ms:.1f}")
        outcome = one.report["outcome"] if one.report else "not verified"
        table.add_row(one.precision, f"{one.megabytes:.1f}", *figures, outcome, one.version.name if one.version else "")
    console = Console(highlight=False)
    console.print(table)
    for remark in remarks(built):
        console.print(remark)
