"""Which settings to measure next, from all that was measured so far. Pure functions.

It is a coordinate ascent, led by what was seen. The stage that requests wait for gets more instances, the detector
larger batches and a delay if it is that stage, and stages that idle get fewer instances. A step is taken if it brings
more than measurements of the same settings differ by. If two stages are walls of the same height, to move one of them
brings nothing; the search then goes on from there with the other one before it steps back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from triptych.contract import DETECTOR, STAGES
from triptych.measure.ratio import quantile
from triptych.measure.tuning import Try, change
from triptych.serving.tuned import Settings

FIRST_TRIES = 3
"""How often the first settings are measured, to know by how much the same settings differ."""

MOST_TRIES = 3
"""How often settings that may be better are measured, at most, before they are taken or left."""

CONFIDENCE = 0.9
"""Two-sided: of steps that bring nothing, one in twenty is taken. The turns at the end do not fall for it."""

LEAST_SPREAD = 0.005
"""Measurements that agree by chance do not vary by less."""

GROWTH = 1.5
"""How many times as many instances a stage gets in one step..."""

IDLE, WANTED = 0.5, 0.7
"""...and a stage that is busy for less than `IDLE` of the time gets so few that it will be for `WANTED` of it."""

TOLERATED = 0.1
"""Where the wall has moved to another stage, the search goes on even from what is a tenth worse."""

FIRST_DELAY_US, LEAST_DELAY_US, MOST_DELAY_US = 500, 250, 4000
"""The delay that is tried first; from there it is doubled and halved, down to the least and then to none."""


@dataclass(frozen=True)
class Limits:
    """How far the search goes.

    Attributes:
        cores: of the machine: the most instances of a stage on them, though two are always tried.
        detector: the most instances of the detector.
        batch: the largest batch of the detector.
    """

    cores: int
    detector: int
    batch: int

    def most(self, stage: str) -> int:
        """Return the most instances of a stage."""
        return self.detector if stage == DETECTOR.name else max(2, self.cores)

    def allow(self, settings: Settings) -> bool:
        """Return whether settings are within them."""
        return (
            all(1 <= settings.of_stage(stage.name) <= self.most(stage.name) for stage in STAGES)
            and 1 <= (settings.threads or 1) <= self.cores
            and 1 <= settings.batch <= self.batch
            and 0 <= settings.delay_us <= MOST_DELAY_US
        )


class History:
    """All that was measured so far.

    Attributes:
        best: the settings that the search stands at.
        spread: by how much measurements of the same settings differ: the standard deviation of the logarithm.
    """

    def __init__(self, tries: Sequence[Try]) -> None:
        """Take tries in their order; the first is of the first settings, and was answered."""
        self._tries: dict[Settings, list[Try]] = {}
        for one in tries:
            self._tries.setdefault(one.settings, []).append(one)
        answered = [settings for settings in self._tries if not self.is_refused(settings)]
        residuals = [log - self._mean(settings) for settings in answered for log in self._logs(settings)]
        self._freedom = max(1, len(residuals) - len(answered))
        self.spread = max(LEAST_SPREAD, math.sqrt(sum(residual**2 for residual in residuals) / self._freedom))
        self.best = tries[0].settings
        for settings in self._tries:
            if self.gain(settings) > self.noise(settings):
                self.best = settings

    @property
    def newest(self) -> Settings:
        """The settings that were measured last for the first time."""
        return next(reversed(self._tries))

    def __contains__(self, settings: Settings) -> bool:
        return settings in self._tries

    def count(self, settings: Settings) -> int:
        """Return how often settings were measured."""
        return len(self._tries[settings])

    def last(self, settings: Settings) -> Try:
        """Return the last measurement of settings."""
        return self._tries[settings][-1]

    def gain(self, settings: Settings) -> float:
        """Return by how much settings are better than the best: the logarithm of the ratio of images a second."""
        return self._mean(settings) - self._mean(self.best)

    def noise(self, settings: Settings) -> float:
        """Return which gain over the best may be chance."""
        error = self.spread * math.sqrt(1 / self.count(settings) + 1 / self.count(self.best))
        return quantile(CONFIDENCE, self._freedom) * error

    def is_refused(self, settings: Settings) -> bool:
        """Return whether settings were refused at least once."""
        return any(one.refused for one in self._tries[settings])

    def _logs(self, settings: Settings) -> list[float]:
        return [math.log(one.images_per_s) for one in self._tries[settings]]

    def _mean(self, settings: Settings) -> float:
        return -math.inf if self.is_refused(settings) else sum(self._logs(settings)) / self.count(settings)


def next_settings(tries: Sequence[Try], limits: Limits) -> Settings | None:
    """Return what to measure next; None where no step is left that was not tried.

    Args:
        tries: all so far, at least one; the first is of the first settings, and was answered.
        limits: how far to go.
    """
    history, start = History(tries), tries[0].settings
    if history.count(start) < FIRST_TRIES:
        return start
    best, newest = history.best, history.newest
    if newest != best and _is_promising(history, newest):
        return min(newest, best, key=history.count)
    for settings in _candidates(history, limits):
        if limits.allow(settings) and settings not in history:
            return settings
    return None


def _is_promising(history: History, settings: Settings) -> bool:
    """Return whether settings are better than the best by what may be chance, and may yet be shown to be."""
    gain, noise = history.gain(settings), history.noise(settings)
    return noise / 2 < gain <= noise and history.count(settings) < MOST_TRIES


def _candidates(history: History, limits: Limits) -> Iterator[Settings]:
    best, newest = history.best, history.newest
    seen = history.last(best)
    if newest != best and history.gain(newest) > -history.noise(newest) - TOLERATED:
        wall = history.last(newest).wall
        if wall != seen.wall:
            yield _more(newest, wall, limits)
    yield from _steps(best, seen, limits)


def _steps(settings: Settings, seen: Try, limits: Limits) -> Iterator[Settings]:
    """Yield the steps from settings, those first that what was seen of them speaks for."""
    wall, *others = sorted(seen.stages, key=lambda name: -seen.stages[name].queue_ms)
    yield _more(settings, wall, limits)
    if wall == DETECTOR.name:
        yield from _batching(settings)
    for stage in sorted(seen.stages, key=lambda name: seen.stages[name].busy):
        count, busy = settings.of_stage(stage), seen.stages[stage].busy
        if busy < IDLE:
            yield _with(settings, stage, min(count - 1, math.ceil(count * busy / WANTED)))
    yield _fewer(settings, wall, limits)
    for stage in others:
        yield _more(settings, stage, limits)
    if wall != DETECTOR.name:
        yield from _batching(settings)
    for stage in others:
        yield _fewer(settings, stage, limits)


def _batching(settings: Settings) -> Iterator[Settings]:
    """Yield larger batches and longer delays, then smaller and shorter ones; a delay is for batches alone."""
    batch, delay_us = settings.batch, settings.delay_us
    yield replace(settings, batch=2 * batch)
    if batch > 1:
        yield replace(settings, delay_us=2 * delay_us or FIRST_DELAY_US)
        yield replace(settings, batch=batch // 2, delay_us=delay_us if batch > 2 else 0)
        yield replace(settings, delay_us=delay_us // 2 if delay_us > LEAST_DELAY_US else 0)


def _more(settings: Settings, stage: str, limits: Limits) -> Settings:
    """Return settings with more instances of a stage. Those of a detector on the CPU share the cores as threads."""
    count, threads = settings.of_stage(stage), settings.threads or 1
    if stage == DETECTOR.name and threads > 1:
        fewer = min(threads - 1, round(threads / GROWTH))
        return replace(settings, detector=max(count + 1, limits.cores // fewer), threads=fewer)
    return _with(settings, stage, max(count + 1, min(limits.most(stage), round(count * GROWTH))))


def _fewer(settings: Settings, stage: str, limits: Limits) -> Settings:
    """Return settings with fewer instances of a stage; those of a detector on the CPU get the cores of the others."""
    count = settings.of_stage(stage)
    if stage == DETECTOR.name and settings.threads:
        more = max(settings.threads + 1, round(settings.threads * GROWTH))
        return replace(settings, detector=min(count - 1, limits.cores // more), threads=more)
    return _with(settings, stage, min(count - 1, round(count / GROWTH)))


def _with(settings: Settings, stage: str, count: int) -> Settings:
    return replace(settings, **{stage: count})


@dataclass(frozen=True)
class Step:
    """A try, and what came of it.

    Attributes:
        tried: what was measured.
        change: what it changes about the best so far; empty if it is the best itself.
        taken: whether the search goes on from here.
    """

    tried: Try
    change: str
    taken: bool


def steps(tries: Sequence[Try]) -> list[Step]:
    """Return the search step by step."""
    made, best = [], tries[0].settings
    for number, one in enumerate(tries, start=1):
        after = History(tries[:number]).best
        made.append(Step(one, change(best, one.settings), after != best))
        best = after
    return made
