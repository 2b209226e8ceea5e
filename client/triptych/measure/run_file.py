"""The run file: one load and all that was seen of it, as JSON.

`docs/run_file.schema.json` documents every field; `python -m triptych.measure.run_file` makes it from this module.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from triptych.measure.attribution import Attribution
from triptych.measure.bounds import bounds_of
from triptych.measure.documents import Format
from triptych.measure.footprint import Footprint
from triptych.measure.histogram import Histogram
from triptych.measure.intervals import Interval
from triptych.measure.power.figures import Kind, Power
from triptych.measure.scenario import Scenario
from triptych.wire.statistics import Counters

VERSION: Final = 2

Loop = Literal["closed", "constant", "poisson", "camera", "video"]


@dataclass(frozen=True)
class ImageSet:
    """The images that were sent.

    Attributes:
        count: how many.
        total_bytes: of all together, encoded.
        sha256: of their own hashes, one after the other, in the order of their names.
    """

    count: int
    total_bytes: int
    sha256: str

    @classmethod
    def of(cls, images: Sequence[bytes]) -> ImageSet:
        """Describe encoded images."""
        digest = hashlib.sha256(b"".join(hashlib.sha256(image).digest() for image in images))
        return cls(len(images), sum(map(len, images)), digest.hexdigest())


@dataclass(frozen=True)
class Workload:
    """What was asked of the server.

    Attributes:
        loop: `closed`: each user waits for its answer. `constant` and `poisson`: requests come at a rate, whatever the
            answers do. `camera`: each user sends frames at a rate, and drops the ones that are due while it waits. In
            these three latency counts from when a request was due. `video`: the frames of `triptych track`.
        users: of the closed loop, or cameras; of videos, frames in flight, of all together; 0 in the open loops.
        rate_per_s: requests a second of the open loops, or of each camera; else None.
        shape: how users or rate change over the time, as `triptych_loadtest.shapes` has them.
        batch: images in a request.
        sizes: what images were scaled to, such as "1920x1080"; empty if they were sent as they are.
        processes: load generators that shared the work.
        warmup_s: how long the load went on before anything counted.
        duration_s: how long it was measured.
        images: what was sent; of several videos, the frames of one after those of another.
        sources: what the videos of `triptych track` are called; empty for load tests.
        seed: of what is random: the order of the images, the phases of cameras, the gaps of `poisson`; None of a video.
    """

    loop: Loop
    users: int
    rate_per_s: float | None
    shape: str
    batch: int
    sizes: list[str]
    processes: int
    warmup_s: float
    duration_s: float
    images: ImageSet
    sources: list[str] = field(default_factory=list)
    seed: int | None = None


@dataclass(frozen=True)
class ServedDetector:
    """The detector as the server serves it.

    Attributes:
        version: its number in the model repository.
        backend: Triton's backend, such as `python` or `tensorrt`.
        instances: how many.
        max_batch: images that one execution may take.
        manifest: what its publication wrote down; None where the model repository is not at hand.
    """

    version: int
    backend: str
    instances: int
    max_batch: int
    manifest: dict[str, Any] | None = None


@dataclass(frozen=True)
class Environment:
    """Where it ran. CPU, cores, GPUs and packages are those of the load generator's machine.

    Attributes:
        address: the server's.
        cpu: the processor's name.
        cores: cores that the load generator may use.
        gpus: their names; empty where there are none.
        versions: by package, and also of `python` and `triton` (the server's).
        detector: None where the server does not say.
    """

    address: str
    cpu: str
    cores: int
    gpus: list[str]
    versions: dict[str, str]
    detector: ServedDetector | None = None


@dataclass(frozen=True)
class Failure:
    """Requests that failed in one way.

    Attributes:
        count: how many.
        example: the message of one of them.
    """

    count: int
    example: str


@dataclass(frozen=True)
class VideoSide:
    """What became of one video, camera or stream.

    Attributes:
        latencies: of the frames that were answered, from the beginning of a frame's reading until its line was written.
        failed: frames that could not be read.
        dropped: frames of a live source that nobody took, since those before them were not done.
        seconds: from the first frame to the last line.
        lost: why it ended before its end; empty if it did not.
    """

    latencies: Histogram
    failed: int
    dropped: int
    seconds: float
    lost: str = ""

    @property
    def frames_per_s(self) -> float:
        """Frames that were answered, a second."""
        return self.latencies.count / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class ClientSide:
    """What the clients saw.

    Attributes:
        latencies: of the requests that succeeded; those that failed or were not sent have none.
        by_request: the same by the request's name, where there are several.
        failures: of the requests that failed, by the name of the error's class.
        seconds: from the first request to the last answer.
        cpu_s: CPU time of the processes that sent the requests, together.
        busiest: the share of one core that the busiest of them used, 0..1 and above.
        truncated: of the requests that succeeded, how many have an answer that was cut off: objects may be missing.
        videos: what became of each of the workload's `sources`, in the same order.
        dependence: of how many requests one tells something of its own (`triptych.measure.bounds`).
        unsent: requests that were due and were not sent.
    """

    latencies: Histogram
    by_request: dict[str, Histogram]
    failures: dict[str, Failure]
    seconds: float
    cpu_s: float
    busiest: float
    truncated: int = 0
    videos: list[VideoSide] = field(default_factory=list)
    dependence: float = 1.0
    unsent: int = 0

    @property
    def failed(self) -> int:
        """How many requests failed."""
        return sum(failure.count for failure in self.failures.values())

    @property
    def bounds_ms(self) -> dict[str, float]:
        """What the percentiles are at most, with 99% confidence; those that have too few requests are left out."""
        return bounds_of(self.latencies, self.dependence)

    @property
    def rate_per_s(self) -> float:
        """Requests that succeeded, a second."""
        return self.latencies.count / self.seconds if self.seconds else 0.0

    @property
    def left_out(self) -> str:
        """Say which requests the latencies leave out; empty if they are of all that were due."""
        parts = [
            *([f"{self.failed:,} that failed"] if self.failed else ()),
            *([f"{self.unsent:,} that were due and were not sent"] if self.unsent else ()),
        ]
        due = self.latencies.count + self.failed + self.unsent
        return f"of {due:,} requests that were due, the latencies leave out {' and '.join(parts)}" if parts else ""


@dataclass(frozen=True)
class Run:
    """One load.

    Attributes:
        started: when the measurement began, UTC, ISO 8601.
        workload: what was asked.
        environment: where.
        client: what the clients saw.
        server: the server's counters of each model, differenced over exactly the measured time.
        attribution: where the time went.
        intervals: the measured time in equal parts.
        command: what was typed.
        footprint: what the server's processes held, and memory in use on its GPUs; None where the server was not on the
            load generator's machine, or could not be seen from there.
        power: what its GPUs and processors took; None in runs that were written before there was one.
        interrupted: why there are no counters of the server; empty if there are.
        scenario: what MLPerf's scenario says of it; None of other load tests.
        version: of this format.
    """

    started: str
    workload: Workload
    environment: Environment
    client: ClientSide
    server: dict[str, Counters]
    attribution: Attribution
    intervals: list[Interval]
    command: list[str]
    footprint: Footprint | None = None
    interrupted: str = ""
    scenario: Scenario | None = None
    power: Power | None = None
    version: Literal[2] = VERSION

    @property
    def images(self) -> int:
        """How many images were answered."""
        return self.client.latencies.count * self.workload.batch

    @property
    def images_per_j(self) -> dict[Kind, float]:
        """How many images a joule answered, of the GPUs and of the processors, where their energy is known."""
        power = self.power
        return {kind: self.images / power.energy_j(kind) for kind in power.kinds} if power else {}


def _upgrade(data: dict[str, Any]) -> dict[str, Any]:
    """Leave out percentiles from the server's metrics: they were of the last minute, not of the measured time."""
    attribution = data.get("attribution")
    if isinstance(attribution, dict) and attribution.get("source") == "summaries":
        return {**data, "attribution": {**attribution, "source": "statistics", "percentiles_ms": {}}}
    return data


FORMAT = Format("run", Run, VERSION, mark="client", upgrade=_upgrade)

read, write = FORMAT.read, FORMAT.write

if __name__ == "__main__":
    sys.stdout.write(json.dumps(FORMAT.schema(), indent=1) + "\n")
