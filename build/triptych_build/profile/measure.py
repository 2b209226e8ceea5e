"""Measure profiles: each subject without its runtime's profile and with it, in turn, on random pixels."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version
from typing import cast

import numpy as np

from triptych.errors import BuildError
from triptych.files import sha256
from triptych.machine import available_cores, cpu_model, nvidia_gpus
from triptych.measure.profile import LayerTime, Profile
from triptych.measure.run_file import Environment
from triptych.runtimes import open_runtime
from triptych.runtimes._layers import PROFILED, ProfiledRuntime
from triptych.runtimes._tensorrt import builder_of, library
from triptych_build.profile.subject import ON_GPU, Subject

ROUNDS = 5
"""Turns of each subject, so that a machine that slows down or speeds up favours none of them."""

WARM_UP = 3
"""Calls of each before anything counts."""


def measure(
    subjects: Sequence[Subject], batch: int, runs: int, command: list[str], say: Callable[[int, int], None]
) -> list[Profile]:
    """Profile one subject, or several in turn.

    Args:
        subjects: what is profiled.
        batch: images in a call.
        runs: calls of each subject without the profile, and as many with it.
        command: what was typed, for the files.
        say: gets the turns done and their number after each turn.

    Raises:
        BuildError: a runtime is not installed, or cannot read its file here.
    """
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    sides = [_Side(subject, batch) for subject in subjects]
    turns = [runs // ROUNDS + (number < runs % ROUNDS) for number in range(min(ROUNDS, runs))]
    for number, calls in enumerate(turns):
        for side in sides if number % 2 == 0 else reversed(sides):
            side.take_turn(calls)
        say(number + 1, len(turns))
    return [side.profile(started, command) for side in sides]


class _Side:
    """A subject that is loaded twice, without the profile and with it."""

    def __init__(self, subject: Subject, batch: int) -> None:
        self._subject = subject
        threads = subject.threads or 1
        self._plain = open_runtime(subject.runtime, subject.path, threads=threads)
        profiled = open_runtime(subject.runtime, subject.path, threads=threads, runtimes=PROFILED)
        self._profiled = cast(ProfiledRuntime, profiled)
        shape = (batch, *self._plain.input_shape)
        self._pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        self._runs, self._latency_ms = 0, 0.0
        try:
            for runtime in (self._plain, self._profiled):
                for _ in range(WARM_UP):
                    runtime.detect(self._pixels)
        except RuntimeError as error:
            raise BuildError(f"{subject.path} cannot be run with a batch of {batch}: {error}") from error
        self._profiled.start()

    def take_turn(self, calls: int) -> None:
        """Make so many calls without the profile, and as many with it."""
        for _ in range(calls):
            began = time.perf_counter()
            self._plain.detect(self._pixels)
            self._latency_ms += (time.perf_counter() - began) * 1000
        for _ in range(calls):
            self._profiled.detect(self._pixels)
        self._runs += calls

    def profile(self, started: str, command: list[str]) -> Profile:
        """Return what was measured.

        Raises:
            BuildError: the runtime's profile is not whole.
        """
        subject = self._subject
        try:
            times = self._profiled.times()
        except RuntimeError as error:
            raise BuildError(f"{subject.path} has no profile: {error}; make fewer --runs") from error
        recognised = subject.operators.recognised if subject.operators else lambda layer: layer
        return Profile(
            started=started,
            model=subject.name,
            sha256=sha256(subject.path),
            precision=subject.precision,
            runtime=subject.runtime,
            batch=len(self._pixels),
            threads=subject.threads,
            runs=self._runs,
            latency_ms=self._latency_ms / self._runs,
            profiled_ms=times.ms / self._runs,
            layers=[
                LayerTime(**asdict(recognised(layer)), ms=ms / self._runs) for layer, ms in times.layers_ms.items()
            ],
            environment=_environment(subject),
            command=command,
        )


def _environment(subject: Subject) -> Environment:
    runtime = subject.runtime
    if runtime == ON_GPU:
        runtime = builder_of(subject.path)
        versions = {runtime: str(library(runtime).__version__)}
    else:
        versions = {runtime: version(runtime)}
    return Environment(
        address="",
        cpu=cpu_model(),
        cores=available_cores(),
        gpus=[gpu.name for gpu in nvidia_gpus()],
        versions={"python": platform.python_version(), "triptych": version("triptych"), **versions},
        detector=subject.detector,
    )
