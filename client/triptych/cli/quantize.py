"""`triptych quantize`: an adapted model in another precision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from triptych.cli.options import Words, grouped

if TYPE_CHECKING:
    from triptych_build.quantize.calibrate import Calibration


Method = Literal["percentile", "entropy", "max"]
"""The ways to choose an int8 range from what was measured."""

Narrow = Literal["fp16", "bf16", "int8"]
"""The precisions that a float32 model can be given."""


@dataclass(frozen=True)
class QuantizeOptions:
    """How int8 ranges are found, and which layers stay in float."""

    PANEL: ClassVar[str] = "int8"

    calibration_images: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            metavar="DIR",
            help="Typical images, 200 or more: int8 ranges come from them, and what fp16 loses is measured on them.",
        ),
    ] = None
    method: Annotated[Method, typer.Option(help="How a range is chosen.")] = "percentile"
    exclude: Annotated[
        Words | None,
        typer.Option(
            parser=Words.parse, metavar="LAYER,…", help="Layers, or patterns such as /head/*, to leave in float."
        ),
    ] = None
    scan: Annotated[
        bool, typer.Option("--scan", help="Find the most sensitive layers, and leave them in float; it takes minutes.")
    ] = False
    min_int8_share: Annotated[
        float,
        typer.Option(
            min=0, max=1, metavar="0..1", help="Refuse int8 with a smaller share of the layers with weights in int8."
        ),
    ] = 0.5

    def calibration(self) -> Calibration | None:
        """Return the options as a value; None without images.

        Raises:
            typer.BadParameter: `--exclude` or `--scan` without images.
            BuildError: there are no images in the directory.
        """
        from triptych_build.quantize.calibrate import Calibration, calibration_images

        if self.calibration_images is None:
            if self.exclude or self.scan:
                raise typer.BadParameter("--exclude and --scan need images; name a directory with --calibration")
            return None
        images = calibration_images(self.calibration_images)
        return Calibration(images, self.method, tuple(self.exclude or ()), self.scan)


@grouped
def quantize(
    adapted: Annotated[Path, typer.Argument(metavar="ADAPTED.onnx", help="A model of `triptych adapt`.")],
    precision: Annotated[Narrow, typer.Option(help="The precision to give it.")],
    out: Annotated[Path, typer.Option(metavar="MODEL.onnx", help="Where the model in that precision goes.")],
    int8: QuantizeOptions,
) -> None:
    """Give an adapted model another precision."""
    from triptych_build.quantize.calibrate import describe_calibration
    from triptych_build.quantize.quantizer import describe, quantize_file

    measured = QuantizeOptions(int8.calibration_images if precision == "fp16" else None)
    if precision != "int8" and int8 != measured:
        raise typer.BadParameter(f"the options of int8 change nothing in {precision}; leave them out")
    calibration = int8.calibration()
    for line in describe_calibration(calibration) if calibration and precision == "int8" else ():
        typer.echo(line)
    quantized = quantize_file(adapted, out, precision, calibration, min_int8_share=int8.min_int8_share)
    for line in describe(quantized, out, precision):
        typer.echo(line)
