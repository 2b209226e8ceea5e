"""What is known of a plan: its record, a file next to it, because a plan itself only opens on its own GPU."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from triptych.errors import BuildError
from triptych_build.adapt.onnx_file import Adapted
from triptych_build.tensorrt.options import Profile


@dataclass(frozen=True)
class Binding:
    """A tensor that a plan takes or gives; the batch is -1 where it is dynamic."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Engine:
    """What was built, as the plan's record says.

    Attributes:
        builder, version: the library that built it.
        precision: what was asked for.
        compute_capabilities: the GPUs that it is for, e.g. "9.0".
        gpu, driver, cuda: where it was built (the newest CUDA that its driver runs); None where it is not known.
        hardware_compatibility, version_compatible: see `options.Options`.
        profiles: the batch sizes that it takes.
        inputs, outputs: its bindings.
        plan_bytes: its size.
        build_s: how long the build took, in seconds.
        layers: how many layers compute in each precision.
        layers_from: "plan" (the engine inspector's word) or "network" (as it was before fusion; no GPU to ask).
    """

    builder: str
    version: str
    precision: str
    compute_capabilities: tuple[str, ...]
    gpu: str | None
    driver: str | None
    cuda: str | None
    hardware_compatibility: str
    version_compatible: bool
    profiles: tuple[Profile, ...]
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    plan_bytes: int
    build_s: float
    layers: dict[str, int] = field(default_factory=dict)
    layers_from: str = "network"

    @property
    def is_fixed(self) -> bool:
        """Whether it takes one batch size alone."""
        return len(self.profiles) == 1 and self.profiles[0].is_fixed

    @property
    def largest_batch(self) -> int:
        """The largest batch of all profiles."""
        return max(profile.max for profile in self.profiles)

    def takes(self, batch: int) -> bool:
        """Return whether a profile covers a batch size."""
        return any(profile.min <= batch <= profile.max for profile in self.profiles)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Engine:
        """Read what `to_dict` wrote."""
        return cls(
            **stored
            | {
                "compute_capabilities": tuple(stored["compute_capabilities"]),
                "profiles": tuple(Profile(**profile) for profile in stored["profiles"]),
                **{
                    side: tuple(Binding(**binding | {"shape": tuple(binding["shape"])}) for binding in stored[side])
                    for side in ("inputs", "outputs")
                },
            }
        )


@dataclass(frozen=True)
class Record:
    """The file next to a plan.

    Attributes:
        adapted: what it was made of.
        engine: what was built.
        layers: each layer's name, kind and precision.
        int8: how much of the graph is quantized, as `Coverage.to_dict` says; None in another precision.
    """

    adapted: Adapted
    engine: Engine
    layers: list[dict[str, str]]
    int8: dict[str, Any] | None = None


def record_path(plan: Path) -> Path:
    """Return where the record of a plan lies."""
    return plan.with_name(f"{plan.name}.json")


def read_record(plan: Path) -> Record:
    """Read the record of a plan.

    Raises:
        BuildError: it has none that can be read.
    """
    try:
        stored = json.loads(record_path(plan).read_text())
        adapted, engine = Adapted.from_dict(stored["adapted"]), Engine.from_dict(stored["engine"])
        return Record(adapted, engine, stored["layers"], stored.get("int8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BuildError(
            f"{plan} has no record {record_path(plan).name} that can be read ({error}); build it with `triptych engine`"
        ) from error
