"""The tries of `triptych tune`: a server of its own for each, on free ports, and one load test of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

from triptych.contract import DETECTOR
from triptych.errors import MeasurementError, TriptychError
from triptych.machine import available_cores
from triptych.measure.ratio import FEWEST_RUNS
from triptych.measure.run_file import Run
from triptych.measure.sweep_runner import run_load_test
from triptych.measure.tuning import Try, Tuning, ratio_of_turns
from triptych.measure.tuning_search import History, Limits, next_settings
from triptych.model_config import read_config
from triptych.serving.fitting import Fitting
from triptych.serving.queues import is_on_gpu
from triptych.serving.server import Ports, TritonServer
from triptych.serving.tuned import Place, Settings, Tuned

WARMUP_S = 2.0
"""How long the load goes on before anything counts."""

READY_TIMEOUT_S = 120.0

GPU_INSTANCES = 8
"""The most instances of a detector on a GPU that are tried; each has its memory there."""


@dataclass
class Servers:
    """Starts servers and measures them.

    Attributes:
        model_repository: what they serve.
        images: the directory of the images to send.
        users: that each wait for their answer.
        batch: images in a request.
        duration_s: how long each is measured.
        directory: for their logs and run files.
        runs: in the order in which they were measured.
    """

    model_repository: Path
    images: Path
    users: int
    batch: int
    duration_s: float
    directory: Path
    runs: list[Run] = field(default_factory=list)

    def measure(self, settings: Settings) -> Try:
        """Serve with these settings, measure, and stop; whatever fails is why the settings are refused."""
        out, log = self.directory / "run.json", self.directory / "server.log"
        # Without traces: they cost the server time, and its counters say enough.
        options = ["--images", self.images, "--users", self.users, "--batch", self.batch, "--no-traces"]
        options += ["--processes", max(1, available_cores() // 4)]
        try:
            with TritonServer(
                self.model_repository,
                ports=Ports.free(),
                log_path=log,
                settings=settings,
                ready_timeout_s=READY_TIMEOUT_S,
            ) as server:
                run = run_load_test(["--address", server.grpc_address, *options], out, WARMUP_S, self.duration_s)
                server.kill()  # nothing is in flight, and an orderly end would take seconds
        except TriptychError as error:
            return Try(settings, refused=str(error))
        self.runs.append(run)
        return Try.of(settings, run)

    def start(self) -> Settings:
        """Return what `triptych serve` would serve with.

        Raises:
            ContractError: a stage's configuration is not there or cannot be read.
        """
        return Fitting(self.model_repository).settings()

    def limits(self) -> Limits:
        """Return how far to go with this machine and this detector.

        Raises:
            ContractError: the detector's configuration is not there or cannot be read.
        """
        config, cores = read_config(self.model_repository / DETECTOR.name), available_cores()
        return Limits(cores, GPU_INSTANCES if is_on_gpu(config) else max(2, cores), config.max_batch_size)


class Progress(Protocol):
    """What shows how far it has come."""

    def under_way(self, settings: Settings, turn: int) -> None:
        """Take what is measured now; `turn` counts the turns at the end from 1 on, and is 0 in the search."""

    def searched(self, one: Try) -> None:
        """Take what the search has measured."""


Measure = Callable[[Settings], Try]


def search(measure: Measure, start: Settings, limits: Limits, seconds: float, clock: Callable[[], float]) -> list[Try]:
    """Measure until no step gains, or until the time is up.

    Args:
        measure: measures settings.
        start: the first ones.
        limits: how far to go.
        seconds: after which nothing else is begun. The first settings are measured as often as they must.
        clock: gives seconds.

    Raises:
        MeasurementError: the first settings are refused, so there is nothing to compare with.
    """
    began = clock()
    tries = [measure(start)]
    if tries[0].refused:
        raise MeasurementError(f"what is served now cannot be measured: {tries[0].refused}")
    while (settings := next_settings(tries, limits)) is not None:
        if settings != start and clock() - began > seconds:
            break
        tries.append(measure(settings))
    return tries


def take_turns(measure: Measure, start: Settings, best: Settings) -> list[Try]:
    """Measure the first settings and the best in turns; which is first changes, so that a drift harms both alike."""
    pairs = [(start, best), (best, start)] * (FEWEST_RUNS // 2)
    return [measure(settings) for pair in pairs for settings in pair]


def tune(servers: Servers, minutes: float, command: list[str], progress: Progress) -> Tuning:
    """Search for better settings than those that are served now.

    Args:
        servers: what measures.
        minutes: how long the search may take; the turns come on top, where something seemed better.
        command: what was typed.
        progress: takes every step.

    Raises:
        ContractError: a stage's configuration is not there or cannot be read.
        MeasurementError: what is served now cannot be measured.
    """
    start, limits = servers.start(), servers.limits()
    place, started = Place.here(servers.model_repository), datetime.now(timezone.utc).isoformat(timespec="seconds")

    def step(settings: Settings) -> Try:
        progress.under_way(settings, 0)
        one = servers.measure(settings)
        progress.searched(one)
        return one

    def turn(settings: Settings) -> Try:
        progress.under_way(settings, next(numbers))
        return servers.measure(settings)

    tries, numbers = search(step, start, limits, 60 * minutes, time.monotonic), itertools.count(1)
    best = History(tries).best
    turns = take_turns(turn, start, best) if best != start else []
    ratio = ratio_of_turns(turns, start, best)
    is_better = ratio is not None and ratio.significant and ratio.value > 1
    first = servers.runs[0]
    return Tuning(
        started=started,
        environment=first.environment,
        images=first.workload.images,
        users=servers.users,
        batch=servers.batch,
        duration_s=servers.duration_s,
        tries=tries,
        turns=turns,
        exhausted=next_settings(tries, limits) is None,
        best=best,
        tuned=Tuned(best, place, started) if is_better else None,
        command=command,
    )
