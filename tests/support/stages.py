"""Three stages whose best settings are planted: what a server with any settings answers, by a formula.

It is the asymptotic bound of a closed queueing network (Denning and Buzen, ACM Computing Surveys 1978): the slowest
station bounds the throughput, and so do the cores, which the stages on them share. All users that are not worked on
wait for the slowest station.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from triptych.contract import STAGES
from triptych.measure.tuning import StageLoad, Try
from triptych.measure.tuning_search import Limits
from triptych.serving.tuned import Settings

BATCHES = (1, 2, 4, 8, 16)
DELAYS_US = (0, 250, 500, 1000, 2000, 4000)


@dataclass
class VirtualStages:
    """The truth about a machine.

    Attributes:
        cores: of the machine.
        service_ms: of an image in an instance of each stage, on a core of its own.
        launch_ms: of the detector on a GPU, for each batch; None of one on the cores.
        gpu_images_s: what the GPU answers at most.
        crowding: the share of the throughput that each process costs that no core is there for.
        waits: whether batches are full only with a delay of 500 µs or more.
        most_detectors: with more of them no server starts.
        users: that wait for their answers.
        noise: of a measurement: the standard deviation of the logarithm.
        seed: of that.
    """

    cores: int
    service_ms: dict[str, float]
    launch_ms: float | None = None
    gpu_images_s: float = 4000.0
    crowding: float = 0.01
    waits: bool = False
    most_detectors: int = 99
    users: int = 64
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)

    def limits(self) -> Limits:
        return Limits(self.cores, 8 if self.launch_ms is not None else max(2, self.cores), 16)

    def per_s(self, settings: Settings) -> dict[str, float]:
        """Return what each stage alone answers a second."""
        rates = {name: 1000 * settings.of_stage(name) / ms for name, ms in self.service_ms.items()}
        if self.launch_ms is None:
            assert settings.threads
            rates["detector"] *= settings.threads**0.8  # threads share an image less well than processes share images
            rates["detector"] *= 0.97 ** (settings.batch > 1)
        else:
            batch = settings.batch if settings.delay_us >= 500 or not self.waits else min(2, settings.batch)
            each_ms = self.launch_ms + batch * self.service_ms["detector"] + settings.delay_us / 1000
            rates["detector"] = min(self.gpu_images_s, 1000 * settings.detector * batch / each_ms)
        return rates

    def images_per_s(self, settings: Settings) -> float:
        """Return the truth."""
        return min(self.per_s(settings).values()) / self._stretch(settings) * self._uncrowded(settings)

    def _stretch(self, settings: Settings) -> float:
        """By how much the cores slow the stages down that share them."""
        on_cores = [name for name in self.service_ms if name != "detector" or self.launch_ms is None]
        wanted = min(self.per_s(settings).values()) * sum(self.service_ms[name] for name in on_cores) / 1000
        return max(1.0, wanted / self.cores)

    def _uncrowded(self, settings: Settings) -> float:
        detectors = settings.detector * (settings.threads or 1)
        return (1 - self.crowding) ** max(0, settings.preprocess + settings.postprocess + detectors - self.cores - 2)

    def measure(self, settings: Settings) -> Try:
        """Measure with noise."""
        if settings.detector > self.most_detectors:
            return Try(settings, refused="out of memory")
        images_per_s, rates = self.images_per_s(settings), self.per_s(settings)
        wall = min(rates, key=lambda name: rates[name])
        waiting_ms = 1000 * self.users / images_per_s
        loads = {
            stage.name: StageLoad(waiting_ms if stage.name == wall else 0.5, min(1.0, images_per_s / rates[stage.name]))
            for stage in STAGES
        }
        measured = images_per_s * float(np.exp(self._random.normal(0, self.noise)))
        return Try(settings, measured, waiting_ms, waiting_ms, waiting_ms, {wall: waiting_ms}, loads)

    def best(self) -> float:
        """Return the most images a second of any settings within the limits."""
        counts = range(1, self.limits().most("preprocess") + 1)
        detectors = [self._best_of(count) for count in range(1, min(self.limits().detector, self.most_detectors) + 1)]
        return max(
            self.images_per_s(replace(settings, preprocess=preprocess, postprocess=postprocess))
            for settings in detectors
            for preprocess, postprocess in itertools.product(counts, counts)
        )

    def _best_of(self, count: int) -> Settings:
        """Return the settings with which so many detectors answer most."""
        if self.launch_ms is None:
            options = [Settings(1, count, 1, max(1, self.cores // count), 1, 0)]
        else:
            delays = [Settings(1, count, 1, None, *each) for each in itertools.product(BATCHES[1:], DELAYS_US)]
            options = [Settings(1, count, 1, None, 1, 0), *delays]
        return max(options, key=lambda settings: self.per_s(settings)["detector"])


CPU = Settings(preprocess=1, detector=2, postprocess=1, threads=1, batch=1, delay_us=0)
GPU = Settings(preprocess=12, detector=2, postprocess=4, threads=None, batch=16, delay_us=0)
"""What is served by default on two cores, and on sixteen with a GPU."""


def h200(kind: type[VirtualStages] = VirtualStages) -> VirtualStages:
    """Return about what an H200 with 16 cores was measured to be: each stage is the wall in turn."""
    return kind(16, {"preprocess": 3.2, "detector": 0.15, "postprocess": 1.0}, launch_ms=8.0)


MACHINES = {
    "two cores, where the default is best": (
        VirtualStages(2, {"preprocess": 3, "detector": 45, "postprocess": 1}),
        CPU,
    ),
    "an H200": (h200(), GPU),
    "an H200 that begins with one of each": (h200(), replace(GPU, preprocess=1, detector=1, postprocess=1)),
    "an H200 that begins with single images": (h200(), replace(GPU, detector=1, batch=1)),
    "walls of the same height": (
        VirtualStages(16, {"preprocess": 10, "detector": 2, "postprocess": 10}, 8),
        Settings(1, 1, 1, None, 1, 0),
    ),
    "too much of all": (
        VirtualStages(16, {"preprocess": 2, "detector": 0.3, "postprocess": 1}, 4, 900, crowding=0.03),
        Settings(16, 8, 16, None, 16, 0),
    ),
    "batches that only a delay fills": (
        VirtualStages(16, {"preprocess": 1, "detector": 0.1, "postprocess": 0.5}, 6, waits=True),
        replace(GPU, detector=1),
    ),
    "large images": (VirtualStages(16, {"preprocess": 40, "detector": 0.2, "postprocess": 1}, 2), GPU),
    "a crowd": (VirtualStages(16, {"preprocess": 2, "detector": 0.2, "postprocess": 14}, 2), GPU),
    "little memory": (replace(h200(), most_detectors=2), GPU),
    "a detector that takes all cores": (
        VirtualStages(16, {"preprocess": 4, "detector": 120, "postprocess": 1}),
        Settings(8, 8, 2, 2, 1, 0),
    ),
}
"""Machines by name, and what is served at first."""
