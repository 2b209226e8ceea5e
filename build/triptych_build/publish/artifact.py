"""A file that can be published: what is known of it, and which targets can serve it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triptych.contract import MAX_BATCH
from triptych.errors import BuildError
from triptych_build.adapt.onnx_file import Adapted, read_adapted_file
from triptych_build.publish.target import TARGETS, TargetName
from triptych_build.quantize.precision import precision_of
from triptych_build.quantize.qdq import coverage
from triptych_build.tensorrt.plan import Engine, read_record


@dataclass(frozen=True)
class Artifact:
    """A file that can be published, and what is known of it.

    Attributes:
        path: an adapted ONNX or a plan.
        adapted: what it was made of.
        precision: "fp32", "fp16", "bf16" or "int8".
        engine: the plan's record; None for an ONNX.
        batch: the batch that an ONNX is fixed at; None where it is dynamic, and for a plan.
        int8: how much of it is quantized, as `Coverage.to_dict` says; None in another precision.
    """

    path: Path
    adapted: Adapted
    precision: str
    engine: Engine | None = None
    batch: int | None = None
    int8: dict[str, Any] | None = None

    @property
    def shapes(self) -> tuple[Sequence[int], Sequence[int]]:
        """The shapes of pixels and candidates without the batch: the plan's bindings, or the ONNX's record."""
        if self.engine:
            return self.engine.inputs[0].shape[1:], self.engine.outputs[0].shape[1:]
        spec = self.adapted.spec
        return (spec.height, spec.width, 3), (self.adapted.candidates, 6)


def read_artifact(path: Path) -> Artifact:
    """Read what is known of a file that is to be published.

    Raises:
        BuildError: it is neither an adapted ONNX nor a plan with its record.
    """
    if path.suffix == ".plan":
        record = read_record(path)
        return Artifact(path, record.adapted, record.engine.precision, record.engine, int8=record.int8)
    model, adapted = read_adapted_file(path)
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or None
    precision = precision_of(model)
    int8 = coverage(model).to_dict() if precision == "int8" else None
    return Artifact(path, adapted, precision, batch=batch, int8=int8)


def check_fit(artifact: Artifact, target: TargetName) -> None:
    """Make sure that a target can serve a file.

    Raises:
        BuildError: there is no such target, or it could never serve the file.
    """
    if target not in TARGETS:
        raise BuildError(f"there is no target {target!r}; choose one of {', '.join(TARGETS)}")
    chosen, engine = TARGETS[target], artifact.engine
    if (engine.builder if engine else None) != chosen.builder:
        given = f"a plan of {engine.builder}" if engine else "an ONNX"
        wanted = (
            f"a plan of {chosen.builder}; build one with `triptych engine`" if chosen.builder else "an adapted ONNX"
        )
        raise BuildError(f"{artifact.path} is {given}, but the target {target} serves {wanted}")
    if target.startswith("onnxruntime") and artifact.precision == "bf16":
        raise BuildError("ONNX Runtime has no convolutions in bf16; publish fp16 or fp32 for it")
    if chosen.template:
        return
    if artifact.batch or (engine and engine.is_fixed):
        raise BuildError(
            f"{artifact.path} takes one batch size alone, and Triton's own backends need a dynamic batch; "
            "build it from a source with a dynamic batch, or publish it for a Python target"
        )
    if engine and not all(map(engine.takes, range(1, MAX_BATCH + 1))):
        raise BuildError(
            f"the ensemble sends batches of 1 to {MAX_BATCH}, but the plan takes "
            f"{' and '.join(map(str, engine.profiles))}; "
            f"build it with --profile 1,8,{MAX_BATCH}, or publish it for tensorrt-python, which cuts batches up"
        )
