"""What a load test is asked to do: which load, from how many processes, measured for how long."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from triptych.client import DEFAULT_ADDRESS
from triptych.errors import ContractError
from triptych.measure.run_file import Loop
from triptych.wire.channel import check_address
from triptych.wire.credentials import LOCAL, Credentials
from triptych_loadtest.payloads import check_batch, check_sizes
from triptych_loadtest.shapes import RESOLUTION_S, Shape, share, users_at


@dataclass(frozen=True)
class LoadProfile:
    """What each user does.

    Attributes:
        rate_per_s: open loop: requests a second of each user; 0 for none.
        poisson: open loop: random gaps, exponentially distributed.
        fps: cameras: frames a second of each; 0 for none.
        shape: how an open loop's rate changes over `duration_s`. Other loops change their users.
        duration_s: of the whole load; 0 if it has no end.
        seed: of what is random: the order of the images, a camera's phase, an open loop's gaps; 0 for others each time.
    """

    rate_per_s: float = 0.0
    poisson: bool = False
    fps: float = 0.0
    shape: Shape = "constant"
    duration_s: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.rate_per_s, self.fps) < 0 or (self.rate_per_s and self.fps):
            raise ContractError(
                f"the rate (now {self.rate_per_s:g}) and the fps (now {self.fps:g}) must be at least 0, and one of "
                "them 0: an open loop sends at a rate, a camera waits for its answer before it sends the next frame"
            )
        if self.poisson and not self.rate_per_s:
            raise ContractError("poisson needs a rate: how many requests a second come at random")
        if self.shape != "constant" and not self.duration_s:
            raise ContractError(f"the shape {self.shape} needs a run time, over which the load takes it")

    @property
    def loop(self) -> Loop:
        """Which loop sends the requests."""
        if self.rate_per_s:
            return "poisson" if self.poisson else "constant"
        return "camera" if self.fps else "closed"

    def rate_at(self, elapsed_s: float) -> float:
        """Return the requests a second of an open loop's user, so long after it began."""
        return self.rate_per_s * share(self.shape, elapsed_s / self.duration_s if self.duration_s else 0.0)


@dataclass(frozen=True)
class Phase:
    """A part of a load test: its warm-up, or what is measured.

    Attributes:
        begins_s, ends_s: on the clock of `time.monotonic`, which the processes of a machine share. Nothing is due
            outside of them.
    """

    begins_s: float
    ends_s: float


MOST_SEEDS = 2**31


_ANSWERS_PER_S = 50.0
"""What a user who waits for each answer may have, before anything is known."""


@dataclass(frozen=True)
class LoadTest:
    """One load test.

    Attributes:
        images: the directory of the images to send, drawn at random.
        address: the server's gRPC address.
        users: users that each wait for their answer, or cameras; an open loop has none.
        rate_per_s: open loop: requests a second of all users together; 0 for none.
        poisson: open loop: random gaps, exponentially distributed.
        fps: frames a second of each camera; 0 for none.
        shape: how the load changes over the measured time.
        batch: images in a request.
        sizes_wh: width and height that each image is scaled to, one after the other; none for the images as they are.
        processes: processes that share the load.
        seed: of what is random: the order of the images, the cameras' phases, an open loop's gaps; another each time.
        warmup_s: how long the load goes on before anything counts.
        duration_s: how long it is measured.
        intervals: parts of that time, one after the other, for the report.
        traces: whether the server's traces are switched on while it is measured.
        model_repository: what the server serves, for the detector's manifest; None where it is not at hand.
        credentials: how to connect to the server.
        metrics_url: where the server's metrics are, for what its GPUs take; empty where this machine's driver says it,
            or they are where Triton has them by default.

    Raises:
        ContractError: the values do not go together, or are out of range.
    """

    images: Path
    address: str = DEFAULT_ADDRESS
    users: int = 4
    rate_per_s: float = 0.0
    poisson: bool = False
    fps: float = 0.0
    shape: Shape = "constant"
    batch: int = 1
    sizes_wh: tuple[tuple[int, int], ...] = ()
    processes: int = 1
    seed: int = field(default_factory=lambda: secrets.randbelow(MOST_SEEDS - 1) + 1)
    warmup_s: float = 2.0
    duration_s: float = 10.0
    intervals: int = 10
    traces: bool = True
    model_repository: Path | None = None
    credentials: Credentials = LOCAL
    metrics_url: str = ""

    def __post_init__(self) -> None:
        check_address(self.address)
        if not re.match(r"(https?://[^/]|$)", self.metrics_url):
            raise ContractError(
                f"the metrics must be at a URL such as http://HOST:8002/metrics, but got {self.metrics_url!r}"
            )
        if min(self.users, self.processes, self.intervals) < 1:
            raise ContractError(
                "users, processes and intervals must be at least 1, but are "
                f"{self.users}, {self.processes} and {self.intervals}"
            )
        if not 0 < self.seed < MOST_SEEDS:
            raise ContractError(f"the seed must be 1 to {MOST_SEEDS - 1}, but is {self.seed}")
        check_batch(self.batch)
        check_sizes(self.sizes_wh)
        if self.duration_s <= 0 or self.warmup_s < 0:
            raise ContractError(
                f"the duration must be above 0 seconds, and the warm-up at least 0, but are {self.duration_s:g} and "
                f"{self.warmup_s:g}"
            )
        self.profile  # noqa: B018  # checks itself

    @property
    def expected_per_s(self) -> float:
        """Requests a second, at a guess where the users wait for their answers."""
        return self.rate_per_s or self.users * (self.fps or _ANSWERS_PER_S)

    def numbers(self, process: int) -> range:
        """Return the numbers of the users of a process; an open loop has one user in each."""
        return range(process, self.processes if self.rate_per_s else self.users, self.processes)

    def turn_s(self, number: int, elapsed_s: float) -> float:
        """Return when a user of this number is next among those that the shape has, at `elapsed_s` or later.

        At the latest that is at the end. The user of an open loop always is: its rate takes the shape.
        """
        while not self.rate_per_s and elapsed_s < self.duration_s:
            if number < users_at(self.shape, elapsed_s / self.duration_s, self.users):
                break
            elapsed_s += RESOLUTION_S
        return elapsed_s

    @property
    def profile(self) -> LoadProfile:
        """What each user does; an open loop has one user in each process."""
        rate_per_s = self.rate_per_s / self.processes
        return LoadProfile(rate_per_s, self.poisson, self.fps, self.shape, self.duration_s, self.seed)
