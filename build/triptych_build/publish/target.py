"""Where a detector runs: the runtimes that Triton can serve it with, and how it is spread over the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from triptych.serving.instances import detector_instances
from triptych_build.tensorrt.options import Builder

TargetName = Literal["openvino", "onnxruntime", "onnxruntime-python", "tensorrt", "tensorrt-python", "tensorrt-rtx"]


@dataclass(frozen=True)
class Target:
    """Where a detector runs.

    Attributes:
        builder: who builds its plan; None where the ONNX itself is served.
        template: the `model.py` that the Python backend gets, in `targets/`; None for a backend of Triton's own.
        package: the installed package whose version the manifest keeps, for targets without a builder.
        served_as: the target by which the embedded server runs the same file, where it lacks the backend itself.
    """

    builder: Builder | None
    template: str | None
    package: str | None = None
    served_as: TargetName | None = None

    @property
    def filename(self) -> str:
        """What the model's file is called in a version directory."""
        return "model.plan" if self.builder else "model.onnx"


TARGETS: dict[TargetName, Target] = {
    "openvino": Target(None, "onnx.py", "openvino"),
    "onnxruntime": Target(None, None, "onnxruntime", served_as="onnxruntime-python"),
    "onnxruntime-python": Target(None, "onnx.py", "onnxruntime"),
    "tensorrt": Target("tensorrt", None, served_as="tensorrt-python"),
    "tensorrt-python": Target("tensorrt", "tensorrt.py"),
    "tensorrt-rtx": Target("tensorrt-rtx", "tensorrt.py"),
}


GPU_INSTANCES = 2
"""On each GPU: one copies while the other calculates. More answer a little more, and each has its memory on the GPU."""


@dataclass(frozen=True)
class InstanceGroup:
    """How a detector is spread over the machine.

    Attributes:
        count: instances that each hold the detector; on GPUs, for each of them.
        threads: CPU threads of each. Count times threads should not pass the cores.
        gpus: the GPUs by number; none: every GPU that the server sees, or the CPU.
        max_queue_delay_us: how long a request may wait for others to share its batch, in microseconds; on a GPU.
        cores: what count and threads were chosen for; `triptych serve` then chooses for its own machine. None if
            somebody named them.
    """

    count: int
    threads: int = 1
    gpus: tuple[int, ...] = ()
    max_queue_delay_us: int = 0
    cores: int | None = None

    @classmethod
    def for_cores(cls, cores: int) -> InstanceGroup:
        """Return how a detector is spread over so many CPU cores if nobody says otherwise."""
        count, threads = detector_instances(cores)
        return cls(count, threads, cores=cores)
