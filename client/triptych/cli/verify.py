"""`triptych verify`: the gate of a deployed detector against its FP32 source."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import typer
from rich.console import Console

from triptych.cli.options import Access, AsJson, Precision, grouped
from triptych.serving.repository import versions
from triptych.serving.server import Ports, TritonServer
from triptych.wire.channel import check_address
from triptych.wire.credentials import LOCAL
from triptych_build.verify.limits import Gate


@dataclass(frozen=True)
class GateOptions:
    """What to verify with, and the limits."""

    PANEL: ClassVar[str] = "Gate"

    data: Annotated[
        Path | None,
        typer.Option(
            metavar="LABELS",
            help="Images to verify with: a COCO JSON, a YOLO data.yaml or folder, or a folder of images alone.",
        ),
    ] = None
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Images of a COCO JSON. Default: in its folder, or in images/ there."),
    ] = None
    max_map_drop: Annotated[
        float | None, typer.Option(metavar="POINTS", help="Most that mAP50-95 may lose. Default: 0.5, or 1.0 in int8.")
    ] = None
    max_class_drop: Annotated[
        float | None, typer.Option(metavar="POINTS", help="Most that a class may lose beyond chance. Default: 1.0.")
    ] = None
    max_served_drop: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="Most that precision and recall may lose at the served score threshold. Default: 1.0, or 2.0 in int8.",
        ),
    ] = None
    max_score_change: Annotated[
        float | None,
        typer.Option(metavar="POINTS", help="Most that the mean score may change. Default: 2.0, or 4.0 in int8."),
    ] = None
    min_agreement: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="0..1",
            help="Without labels, least mAP50-95, precision and recall against the source. Default: 0.95.",
        ),
    ] = None
    max_p95_ms: Annotated[
        float | None,
        typer.Option(min=0, metavar="MS", help="Most that the p95 latency may be, by its bound. Default: no limit."),
    ] = None

    def gate(self, precision: str) -> Gate:
        """Return the gate of a precision, with the limits that these options set."""
        limits = {
            "map_points": self.max_map_drop,
            "class_points": self.max_class_drop,
            "served_points": self.max_served_drop,
            "score_points": self.max_score_change,
            "agreement": self.min_agreement,
            "p95_ms": self.max_p95_ms,
        }
        return replace(Gate.for_precision(precision), **{k: v for k, v in limits.items() if v is not None})


@grouped
def verify(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="The adapted FP32 ONNX that the deployed detector comes from.")
    ],
    gate: GateOptions,
    address: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="A running server.")] = None,
    model_repository: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A model repository, served for the duration.")
    ] = None,
    precision: Annotated[Precision, typer.Option(help="What the engine calculates in.")] = "fp32",
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The images that int8 was calibrated on: none may be in the data."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, metavar="DIR", help="Write report.json and report.md there.")
    ] = None,
    as_json: AsJson = False,
    *,
    access: Access,
) -> None:
    """Hold a deployed detector against its FP32 source: accuracy, determinism, latency.

    Exit codes: 0 it passed, 1 the gate refused it or has too few images to tell, 2 the command line is wrong, 3 no
    server answers.
    """
    if gate.data is None:
        raise typer.BadParameter("name the images to verify with: --data LABELS")
    if (address is None) == (model_repository is None):
        raise typer.BadParameter("name either a running server with --address, or a --model-repository to serve")
    if address is not None:
        check_address(address)

    from triptych.vision.decode import image_files
    from triptych_build.adapt.onnx_file import read_adapted_file
    from triptych_build.verify.datasets import read_dataset
    from triptych_build.verify.gate import verify
    from triptych_build.verify.report import print_report, write_report

    _, record = read_adapted_file(source)
    dataset = read_dataset(gate.data, record.spec.class_names, gate.images)
    with _server(address, model_repository) as running:
        report = verify(
            *(running, source, dataset, gate.gate(precision)),
            credentials=access.credentials() if address else LOCAL,
            precision=precision,
            graph=served_graph(model_repository) if model_repository else None,
            calibration=image_files(calibration) if calibration else (),
        )
    if out:
        write_report(report, out / "report.json")
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        print_report(report, Console(highlight=False))
    report.raise_if_not_passed()
    typer.echo(report.verdict, err=as_json)


def served_graph(model_repository: Path) -> Path | None:
    """Return the ONNX of the served version; None where it is a plan, or nothing is served."""
    served = (version.directory / "model.onnx" for version in versions(model_repository) if version.is_served)
    return next((path for path in served if path.is_file()), None)


@contextmanager
def _server(address: str | None, model_repository: Path | None) -> Iterator[str]:
    """Yield the address of the server to verify; one is started for a model repository."""
    if address or model_repository is None:
        yield str(address)
        return

    with (
        tempfile.TemporaryDirectory(prefix="triptych-verify-") as scratch,
        TritonServer(model_repository, ports=Ports.free(), log_path=Path(scratch) / "log") as server,
    ):
        yield server.grpc_address
