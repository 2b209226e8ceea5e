"""What every source of power has in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from triptych.measure.power.figures import Gauges, Identity


@dataclass(frozen=True)
class Reading:
    """What a device says at one moment.

    Attributes:
        energy_j: its counter of energy, in joules from wherever; None where it says none.
        gauges: the rest.
    """

    energy_j: float | None = None
    gauges: Gauges = field(default_factory=Gauges)


class Source(Protocol):
    """Devices that can be read.

    Attributes:
        period_s: there is nothing to gain from reading more often.
        identities: the devices, by what `read` calls them.
        missing: why there are none, or some are missing; empty if all are there.
    """

    period_s: float
    identities: dict[str, Identity]
    missing: str

    def read(self) -> Mapping[str, Reading]:
        """Read all devices; one that does not answer is left out."""

    def objection(self, answered: int) -> str:
        """Say why the readings are not of the server that gave so many answers; empty if they may be."""

    def close(self) -> None:
        """Let go of it."""
