"""`triptych adapt`: a detector's ONNX into one that keeps the contract."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from triptych.cli.options import Size, Triple, grouped
from triptych.contract import Decoding, Placement

if TYPE_CHECKING:
    from triptych_build.adapt.adapter import Overrides


Head = Literal["end-to-end", "yolox", "objectness", "raw", "mmdeploy", "separate", "query", "split"]
"""The heads, by what `--head` calls them."""

Boxes = Literal["centers", "corners", "corners-yx"]
Unit = Literal["pixels", "fractions"]
Activation = Literal["none", "sigmoid", "softmax"]
NoObject = Literal["none", "first", "last"]

Order = Literal["rgb", "bgr"]


def _divisors(text: str) -> Triple:
    triple = Triple.parse(text)
    if 0 in triple:
        raise typer.BadParameter(f"nothing can be divided by 0, but got {text!r}")
    return triple


@dataclass(frozen=True)
class AdaptOptions:
    """What the user knows of a detector. What is left out follows the habits of its family."""

    PANEL: ClassVar[str] = "The detector (default: as its family has it)"

    head: Annotated[Head | None, typer.Option(help="Its head, instead of recognising it.")] = None
    boxes: Annotated[
        Boxes | None,
        typer.Option(help="What its four numbers are: cx cy w h; x1 y1 x2 y2; or y1 x1 y2 x2. Default: as measured."),
    ] = None
    unit: Annotated[
        Unit | None,
        typer.Option(help="Pixels of the input, or fractions of its width and height. Default: as measured."),
    ] = None
    activation: Annotated[
        Activation | None, typer.Option(help="What makes scores of its numbers. Default: as measured.")
    ] = None
    no_object: Annotated[
        NoObject | None, typer.Option(help="The class that says that there is no object. Default: as measured.")
    ] = None
    size: Annotated[
        Size | None,
        typer.Option(
            parser=Size.parse,
            metavar="WxH",
            help="Input size of a model that was exported without one, or another size where its graph allows that.",
        ),
    ] = None
    names: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Class names, one a line, or an .engine that has them. Default: the model's."
        ),
    ] = None
    order: Annotated[Order | None, typer.Option(help="Order of the input's channels.")] = None
    scale: Annotated[float | None, typer.Option(help="Factor on the pixel values 0..255, before mean and std.")] = None
    mean: Annotated[
        Triple | None, typer.Option(parser=Triple.parse, metavar="A,B,C", help="Subtracted after the scale.")
    ] = None
    std: Annotated[
        Triple | None, typer.Option(parser=_divisors, metavar="A,B,C", help="Divided by, after the mean.")
    ] = None
    placement: Annotated[Placement | None, typer.Option(help="Where the image lies in the letterbox.")] = None
    pad_value: Annotated[int | None, typer.Option(min=0, max=255, help="Grey level of the letterbox's border.")] = None
    score_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Threshold of requests that name none. Default: 0.25.")
    ] = None
    iou_threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Overlap that requests allow if they name none; 1 suppresses nothing."),
    ] = None
    candidates: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="The best N boxes of an image leave the detector, before suppression. Default: 1000, or 300 where the "
            "head gives each object once. TensorRT takes at most 3840.",
        ),
    ] = None
    rows: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Objects that an answer can hold. Default: 300.")
    ] = None
    decode: Annotated[
        Decoding | None,
        typer.Option(
            help="`scaled` decodes JPEGs of twice their size in the letterbox or more to fewer pixels: faster, and "
            "with --data, what it costs and saves is measured. Default: full."
        ),
    ] = None
    keep_batch: Annotated[
        bool, typer.Option("--keep-batch", help="Serve a model of batch 1 image by image; do not open its batch.")
    ] = False

    def overrides(self) -> Overrides:
        """Return the options as a value, with the class names read.

        Raises:
            BuildError: there are no class names in the file.
        """
        from triptych_build.adapt.adapter import Overrides
        from triptych_build.adapt.names import read_names

        return Overrides(**vars(self) | {"names": read_names(self.names) if self.names else None})


@grouped
def adapt(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The detector.")],
    out: Annotated[Path, typer.Option(metavar="ADAPTED.onnx", help="Where the adapted model goes.")],
    detector: AdaptOptions,
) -> None:
    """Rewrite a detector into the contract: pixels in, candidates out."""
    from triptych_build.adapt.adapter import adapt_file, describe

    for line in describe(adapt_file(model, out, detector.overrides())):
        typer.echo(line)
