"""How to build a plan: batch sizes, builder, limits. Plain values, so that a command line can name them cheaply."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from triptych.contract import MAX_BATCH
from triptych.errors import BuildError

Builder = Literal["tensorrt", "tensorrt-rtx"]
"""Whose library builds a plan, and opens it."""

Hardware = Literal["none", "ampere_plus", "same_compute_capability"]
"""Which other GPUs a plan loads on."""


NOT_FOR_RTX = {
    "timing_cache": "--timing-cache",
    "version_compatible": "--version-compatible",
    "hardware": "--hardware",
    "dla_core": "--dla-core",
    "workspace_mib": "--workspace-mib",
    "level": "--level",
}
"""TensorRT for RTX chooses its kernels on the user's own GPU, when the plan is first run there."""


MOST_CANDIDATES = 3840
"""The largest K of TensorRT's TopK."""


def check_candidates(candidates: int) -> None:
    """Make sure that TensorRT can choose so many candidates.

    Raises:
        BuildError: there are too many.
    """
    if candidates > MOST_CANDIDATES:
        raise BuildError(
            f"TensorRT's TopK takes at most {MOST_CANDIDATES} candidates, but the detector gives {candidates}; "
            f"adapt it with --candidates {MOST_CANDIDATES} or fewer"
        )


@dataclass(frozen=True)
class Profile:
    """The batch sizes that one optimization profile covers, and the one that it is tuned for."""

    min: int = 1
    opt: int = 8
    max: int = MAX_BATCH

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            raise BuildError(f"a profile must have 1 <= min <= opt <= max, but got {self.min},{self.opt},{self.max}")

    @property
    def is_fixed(self) -> bool:
        """Whether it covers one batch size alone."""
        return self.min == self.max

    def __str__(self) -> str:
        return str(self.min) if self.is_fixed else f"{self.min},{self.opt},{self.max}"


@dataclass(frozen=True)
class Options:
    """How to build.

    Raises:
        BuildError: an option means nothing to the builder.

    Attributes:
        builder: whose library.
        profiles: one or more; a single fixed one makes a plan of static shapes.
        workspace_mib: most scratch memory of a layer; None leaves TensorRT's own limit.
        timing_cache: a file that remembers how fast each kernel was; None measures them again.
        level: builder optimization level, 0..5; None leaves TensorRT's own.
        version_compatible: the plan loads in later versions of TensorRT too, a little slower.
        hardware: which GPUs the plan loads on besides this one's kind.
        compute_capabilities: what TensorRT for RTX builds for, e.g. "8.9"; it needs no GPU at hand.
        dla_core: run what it can on this DLA core of a Jetson; the GPU takes the rest.
    """

    builder: Builder = "tensorrt"
    profiles: tuple[Profile, ...] = (Profile(),)
    workspace_mib: int | None = None
    timing_cache: Path | None = None
    level: int | None = None
    version_compatible: bool = False
    hardware: Hardware = "none"
    compute_capabilities: tuple[str, ...] = ("8.9",)
    dla_core: int | None = None

    def __post_init__(self) -> None:
        if self.builder == "tensorrt":
            return
        for name, option in NOT_FOR_RTX.items():
            if getattr(self, name) != getattr(Options, name):
                raise BuildError(f"{option} means nothing to TensorRT for RTX; leave it out")
