"""What a comparison of runtimes measures: the cases, each a row of its tables, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from triptych.errors import BuildError
from triptych_build.compare.runtimes import RUNTIMES


@dataclass(frozen=True)
class Case:
    """A row of the tables: a model in a runtime."""

    label: str
    runtime: str
    model: Path
    precision: str = "f32"

    @property
    def device(self) -> str:
        """What it runs on, "CPU" or "GPU"."""
        return "GPU" if "gpu" in RUNTIMES[self.runtime].options else "CPU"


@dataclass(frozen=True)
class Trial:
    """How to measure: threads of one stream, frames of each scenario over all rounds, and the rounds."""

    threads: int
    frames: int = 250
    rounds: int = 5

    def __post_init__(self) -> None:
        if self.threads < 1 or self.rounds < 1:
            raise BuildError(f"--threads and --rounds must be at least 1, but got {self.threads} and {self.rounds}")
        if self.frames < 2 * self.rounds or self.frames % 2:
            raise BuildError(
                f"--frames must be even and at least two for each of the {self.rounds} rounds, but got {self.frames}"
            )

    def frames_of(self, number: int) -> int:
        """Return the frames of a round, an even number, so that they part into batches and streams of two."""
        pairs = self.frames // 2
        return 2 * (pairs // self.rounds + (number < pairs % self.rounds))


def list_cases(
    model: Path,
    int8: Path | None = None,
    plans: Sequence[tuple[str, Path]] = (),
    runtimes: Sequence[str] = tuple(RUNTIMES),
    *,
    has_gpu: bool = False,
) -> list[Case]:
    """Return the cases: an adapted ONNX in every runtime, its int8 sibling where it runs, and TensorRT plans.

    PyTorch and TorchScript are there twice on a machine that has a GPU.

    Raises:
        BuildError: two cases would have one label, a plan is not there, or no case is left.
    """
    cases = [
        Case("PyTorch FP32", "pytorch", model),
        Case("TorchScript FP32", "torchscript", model),
        Case("ONNX Runtime FP32", "onnxruntime", model),
        Case("OpenVINO FP32", "openvino", model),
        Case("OpenVINO BF16", "openvino", model, "bf16"),
    ]
    if has_gpu:
        cases += [
            Case("PyTorch FP32, GPU", "pytorch-gpu", model),
            Case("PyTorch FP16, GPU", "pytorch-gpu", model, "f16"),
            Case("TorchScript FP32, GPU", "torchscript-gpu", model),
            Case("TorchScript FP16, GPU", "torchscript-gpu", model, "f16"),
        ]
    if int8:
        cases += [
            Case("ONNX Runtime INT8", "onnxruntime", int8),
            Case("OpenVINO INT8", "openvino", int8),
        ]
    for label, plan in plans:
        if any(case.label == label for case in cases):
            raise BuildError(f"two rows would be called {label!r}; give --plan another label")
        if not plan.is_file():
            raise BuildError(f"there is no plan {plan}")
        cases.append(Case(label, "tensorrt", plan))
    chosen = [case for case in cases if case.runtime in runtimes]
    if not chosen:
        raise BuildError(
            "nothing is left to compare: tensorrt needs a plan, --plan LABEL=FILE, and what ends in -gpu an NVIDIA GPU"
        )
    return chosen
