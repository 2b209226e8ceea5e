"""What each stage of the pipeline takes: of a frame's latency, and of the time in which it could work.

A frame's latency is the sum of its stages. How many frames a second come out is another matter: the stages work at the
same time, and the busiest of them bounds them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

STAGES = ("read", "encode", "wait", "predict", "track", "write")
"""The parts of a frame's latency, from the beginning of its reading until its line is written; they add up to it.

`predict` is one request, from its call to its answer. `wait` is all time in between: for a place at the server, for
the frames before to be tracked, and for a server that was gone.
"""

OWN_STAGES = tuple(name for name in STAGES if name != "predict")
"""The stages in which no request is with the server."""

LANES = {"reading": ("read", "encode"), "predict": ("predict",), "tracking": ("track", "write")}
"""Who works at the same time, and at which stages."""

BUSY = 0.8
"""A lane that works this share of the time bounds the others."""


@dataclass(frozen=True)
class Times:
    """Where one frame's latency went.

    Attributes:
        began_s: when its reading began, by `time.perf_counter`.
        ms: milliseconds by each of `STAGES`.
    """

    began_s: float
    ms: Mapping[str, float]

    @property
    def total_ms(self) -> float:
        """The time from the beginning of its reading until its line was written."""
        return sum(self.ms.values())


@dataclass
class Totals:
    """The times of many frames, added up.

    Attributes:
        frames: how many.
        ms: milliseconds by each of `STAGES`.
        began_s: when the reading of the first one began, by `time.perf_counter`.
        ended_s: when the line of the last one was written.
    """

    frames: int = 0
    ms: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    began_s: float = 0.0
    ended_s: float = 0.0

    def add(self, times: Times) -> None:
        """Count one frame."""
        if not self.frames:
            self.began_s = times.began_s
        self.ended_s = times.began_s + times.total_ms / 1000
        self.frames += 1
        for name, milliseconds in times.ms.items():
            self.ms[name] += milliseconds

    @property
    def seconds(self) -> float:
        """The time from the first frame's reading to the last one's line."""
        return self.ended_s - self.began_s

    @property
    def frames_per_s(self) -> float:
        """How many frames came out in a second."""
        return self.frames / self.seconds if self.seconds else 0.0

    @classmethod
    def of(cls, parts: Iterable[Totals]) -> Totals:
        """Return the times of all frames of several sources, which were done at the same time."""
        begun = [part for part in parts if part.frames]
        if not begun:
            return cls()
        return cls(
            sum(part.frames for part in begun),
            {name: sum(part.ms[name] for part in begun) for name in STAGES},
            min(part.began_s for part in begun),
            max(part.ended_s for part in begun),
        )

    def means_ms(self) -> dict[str, float]:
        """Return the mean of each stage over the frames."""
        return {name: milliseconds / max(1, self.frames) for name, milliseconds in self.ms.items()}


def busy_shares(
    means_ms: Mapping[str, float], frames_per_s: float, in_flight: int, sources: int = 1
) -> dict[str, float]:
    """Return which share of the time each stage works, 0..1.

    That is its mean time for a frame, times frames a second (Little's law).

    Args:
        means_ms: by each of `STAGES`; `wait` is nobody's work and is left out.
        frames_per_s: how many come out.
        in_flight: requests of a source at a time, which share the work of `predict`.
        sources: how many work at the same time, each with stages of its own.
    """
    places = {"predict": in_flight}
    return {
        name: means_ms[name] / 1000 * frames_per_s / places.get(name, 1) / sources
        for lane in LANES.values()
        for name in lane
    }


def bound_sentence(shares: Mapping[str, float], frames_per_s: float, live: bool, sources: int = 1) -> str:
    """Return in one sentence what bounds the throughput of one source, or of several together."""
    lanes = {lane: sum(shares[name] for name in names) for lane, names in LANES.items()}
    busiest = max(lanes, key=lambda lane: lanes[lane])
    work = " and ".join(LANES[busiest])
    if lanes[busiest] >= BUSY:
        return f"{work} bounds the throughput of {frames_per_s:.1f} frames/s: busy {lanes[busiest]:.0%} of the time"
    if live:
        return (
            f"the source{' bounds' if sources == 1 else 's bound'} the throughput of {frames_per_s:.1f} frames/s: "
            f"{work}, the busiest, works {lanes[busiest]:.0%} of the time"
        )
    return (
        f"nobody is busy all the time at {frames_per_s:.1f} frames/s: {work} works most, {lanes[busiest]:.0%} of it; "
        "the stages wait for each other or for the CPU"
    )


def latency_sentence(means_ms: Mapping[str, float]) -> str:
    """Return in one sentence which stage owns most of a frame's latency."""
    total_ms = sum(means_ms.values())
    name = max(means_ms, key=lambda stage: means_ms[stage])
    share = means_ms[name] / total_ms if total_ms else 0.0
    return f"{name} owns {share:.0%} of a frame's latency: {means_ms[name]:.1f} of {total_ms:.1f} ms"
