"""`triptych publish`: an adapted ONNX or a plan as a new version in the model repository."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from triptych.cli.options import DEFAULT_REPOSITORY, Access, ModelRepository, grouped
from triptych.machine import available_cores
from triptych.wire.channel import check_address
from triptych_build.publish.target import GPU_INSTANCES, TARGETS, InstanceGroup, TargetName


class GpuNumbers(tuple[int, ...]):
    """Numbers of GPUs, each once, the smallest first."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> GpuNumbers:
        """Read `0,1`.

        Raises:
            typer.BadParameter: one is no number of a GPU.
        """
        parts = [part.strip() for part in text.split(",")]
        if not all(part.isdecimal() for part in parts):
            raise typer.BadParameter(f"expected numbers of GPUs such as 0,1, but got {text!r}")
        return cls(sorted({int(part) for part in parts}))


@dataclass(frozen=True)
class PublishOptions:
    """Where a detector goes, and how it runs there."""

    PANEL: ClassVar[str] = "Publish"

    target: Annotated[TargetName, typer.Option("--target", help="What runs the detector.")] = "openvino"
    model_repository: ModelRepository = DEFAULT_REPOSITORY
    instances: Annotated[
        int | None,
        typer.Option(
            "--instances",
            min=1,
            metavar="N",
            help="Instances of the detector. Default: one for each core of the machine that serves it, up to 8; on "
            f"GPUs, {GPU_INSTANCES} on each.",
        ),
    ] = None
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", min=1, metavar="N", help="CPU threads of each instance. Default: they share the cores."
        ),
    ] = None
    gpus: Annotated[
        GpuNumbers | None,
        typer.Option("--gpus", parser=GpuNumbers.parse, metavar="N,…", help="The GPUs to use. Default: all."),
    ] = None
    max_queue_delay_us: Annotated[
        int,
        typer.Option("--max-queue-delay-us", min=0, metavar="US", help="How long a batch may wait to fill, on a GPU."),
    ] = 0
    keep: Annotated[
        int, typer.Option("--keep", min=1, metavar="N", help="Versions that stay; what is served always does.")
    ] = 5
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="HOST:PORT", help="A running server that switches over at the end."),
    ] = None

    def server(self) -> str | None:
        """Return the address of the server that switches over, so that a wrong one is known before anything is done.

        Raises:
            ContractError: it is no address, or several.
        """
        return None if self.address is None else check_address(self.address)

    def group(self) -> InstanceGroup:
        """Return how the detector is spread over the machine."""
        usual = InstanceGroup.for_cores(available_cores())
        on_gpu = TARGETS[self.target].builder is not None
        return InstanceGroup(
            self.instances or (GPU_INSTANCES if on_gpu else usual.count),
            self.threads or usual.threads,
            tuple(self.gpus or ()),
            self.max_queue_delay_us,
            None if on_gpu or self.gpus or self.instances or self.threads else usual.cores,
        )


@grouped
def publish(
    access: Access,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An adapted ONNX, or a plan with its record.")],
    publish: PublishOptions,
) -> None:
    """Publish an adapted ONNX or a plan as a new version, and serve it.

    Exit codes: 0 it is served, 1 the target or the server does not take it, 2 the command line is wrong, 3 no server
    answers at the address.
    """
    from triptych_build.publish.publish import publish as publish_model
    from triptych_build.publish.publish import put_into_service

    address = publish.server()
    directory = publish_model(model, publish.target, publish.model_repository, publish.group())
    typer.echo(f"publish: {directory} for {publish.target}")
    put_into_service(
        directory,
        publish.model_repository,
        keep=publish.keep,
        address=address,
        credentials=access.credentials(),
        say=typer.echo,
    )
