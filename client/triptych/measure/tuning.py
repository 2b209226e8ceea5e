"""What `triptych tune` measures: settings of the stages, one after the other, and the best in turns with the first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal

from triptych.contract import STAGES
from triptych.measure.documents import Format
from triptych.measure.ratio import Ratio, ratio_of
from triptych.measure.run_file import Environment, ImageSet, Run
from triptych.serving.tuned import Settings, Tuned
from triptych.wire.statistics import Counters

VERSION: Final = 1


@dataclass(frozen=True)
class StageLoad:
    """How much a stage has to do.

    Attributes:
        queue_ms: how long a request waits for an instance of it, on average.
        busy: the share of the time that its instances work, 0..1; of a detector on several GPUs it is too high.
    """

    queue_ms: float
    busy: float

    @classmethod
    def of(cls, counters: Counters, instances: int, seconds: float) -> StageLoad:
        """Read it from a stage's counters over so many seconds.

        Each request of a batch counts the time of all of it, so the time is that of a mean request for each execution.
        """
        each_ms = sum(counters.mean_ms(part) for part in ("input", "infer", "output"))
        worked_ms = each_ms * counters.executions
        return cls(counters.mean_ms("queue"), min(1.0, worked_ms / (1000 * seconds * instances)) if seconds else 0.0)


@dataclass(frozen=True)
class Try:
    """Settings, and what a server that was started with them answered.

    Attributes:
        settings: of the stages.
        images_per_s: images in the requests that were answered, a second; 0 where it was refused.
        mean_ms, p50_ms, p95_ms: what clients waited.
        owners_ms: the mean split by owner, as `triptych.measure.attribution` has them.
        stages: by name.
        busiest: the share of a core that the busiest load generator used, 0..1 and above.
        refused: why the settings are out of the question: no server starts, or requests fail. Empty if they are not.
    """

    settings: Settings
    images_per_s: float = 0.0
    mean_ms: float = 0.0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    owners_ms: dict[str, float] = field(default_factory=dict)
    stages: dict[str, StageLoad] = field(default_factory=dict)
    busiest: float = 0.0
    refused: str = ""

    @classmethod
    def of(cls, settings: Settings, run: Run) -> Try:
        """Return what a load test with these settings showed."""
        client, latencies = run.client, run.client.latencies
        if client.failed or not latencies.count:
            example = next((f": {failure.example}" for failure in client.failures.values()), "")
            return cls(
                settings, refused=f"{client.failed} of {client.failed + latencies.count} requests failed{example}"
            )
        return cls(
            settings,
            images_per_s=client.rate_per_s * run.workload.batch,
            mean_ms=latencies.mean_ms,
            p50_ms=latencies.percentile_ms(50),
            p95_ms=latencies.percentile_ms(95),
            owners_ms=run.attribution.breakdowns["mean"].owners(),
            stages={
                stage.name: StageLoad.of(
                    run.server.get(stage.name, Counters()), settings.of_stage(stage.name), client.seconds
                )
                for stage in STAGES
            },
            busiest=client.busiest,
        )

    @property
    def owner(self) -> str:
        """Who has most of the mean, and how much of it; empty where none was answered."""
        name = max(self.owners_ms, key=lambda owner: self.owners_ms[owner], default="")
        return f"{name} {self.owners_ms[name] / self.mean_ms:.0%}" if self.mean_ms else ""

    @property
    def wall(self) -> str:
        """The stage that requests wait for longest; empty where none was answered."""
        return max(self.stages, key=lambda name: self.stages[name].queue_ms, default="")


@dataclass(frozen=True)
class Tuning:
    """A search for better settings.

    Attributes:
        started: when it began, UTC, ISO 8601.
        environment: where; the detector as it was served at first.
        images: what was sent.
        users: that each waited for their answer.
        batch: images in a request.
        duration_s: how long each server was measured.
        tries: the search, in its order; the first settings are those that were served before.
        turns: those, and the best, in turns: a server of its own each time. None if nothing seemed better.
        exhausted: whether no step was left to try; else the time was up.
        best: the settings that the search ended with.
        tuned: what is to be served from now on; None if the best is not shown to be better.
        command: what was typed.
        version: of this format.
    """

    started: str
    environment: Environment
    images: ImageSet
    users: int
    batch: int
    duration_s: float
    tries: list[Try]
    turns: list[Try]
    exhausted: bool
    best: Settings
    tuned: Tuned | None
    command: list[str]
    version: Literal[1] = VERSION

    @property
    def start(self) -> Settings:
        """What was served before."""
        return self.tries[0].settings

    @property
    def ratio(self) -> Ratio | None:
        """How many times as many images a second the best answers, from the turns; None without them."""
        return ratio_of_turns(self.turns, self.start, self.best)

    @property
    def sentence(self) -> str:
        """What was found, in a sentence."""
        if self.best == self.start:
            others = len({one.settings for one in self.tries}) - 1
            tried = f"{others} other{'s were' if others != 1 else ' was'} tried"
            more = "" if self.exhausted else ", and there are more to try: give it more --minutes"
            return f"nothing better was found than {self.start}, as served; {tried}{more}"
        ratio = self.ratio
        if ratio is None:
            return f"{self.best} seemed better, but its turns with {self.start} were not all answered: nothing changes"
        before, after = (mean_images_per_s(self.turns, settings) for settings in (self.start, self.best))
        figures = f"{after:.1f} images/s against {before:.1f} in turns, {ratio}"
        if not self.tuned:
            return f"{self.best} seemed better, but that may be chance ({figures}): nothing changes"
        return f"{self.best}: {figures} of {self.start}"


def ratio_of_turns(turns: Sequence[Try], start: Settings, best: Settings) -> Ratio | None:
    """Return how many times as many images a second one has as the other; None if one has none in some turn."""
    before, after = ([turn.images_per_s for turn in turns if turn.settings == settings] for settings in (start, best))
    if not before or not after or min(*before, *after) <= 0:
        return None
    return ratio_of(_mean(after), _mean(before), after, before)


def mean_images_per_s(tries: Sequence[Try], settings: Settings) -> float:
    """Return the geometric mean of the tries of some settings that were not refused; there is one."""
    return _mean([one.images_per_s for one in tries if one.settings == settings and not one.refused])


def _mean(figures: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, figures)) / len(figures))


def change(before: Settings, after: Settings) -> str:
    """Say what differs, such as `detector 2 → 3, threads 2 → 1`; empty if nothing does."""
    names = {"delay_us": "delay, µs"}
    pairs: list[tuple[str, Any, Any]] = [
        (names.get(one.name, one.name), getattr(before, one.name), getattr(after, one.name)) for one in fields(Settings)
    ]
    return ", ".join(f"{name} {old} → {new}" for name, old, new in pairs if old != new)


FORMAT = Format("tuning", Tuning, VERSION, mark="tries")

read, write = FORMAT.read, FORMAT.write
