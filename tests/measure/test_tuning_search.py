"""The search for better settings, on machines whose best is planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from support.stages import CPU, GPU, MACHINES, VirtualStages, h200
from triptych.measure.tuning import Try, ratio_of_turns
from triptych.measure.tuning_runner import search, take_turns
from triptych.measure.tuning_search import FIRST_TRIES, MOST_DELAY_US, History, Limits, next_settings, steps
from triptych.serving.tuned import Settings

SEEDS = range(20)
NOISE = 0.01
MOST_TRIES = 30
"""Eight minutes of a machine where a try takes fifteen seconds."""


def searched(machine: VirtualStages, start: Settings) -> list[Try]:
    return search(machine.measure, start, machine.limits(), float("inf"), lambda: 0.0)


def test_it_finds_the_planted_best() -> None:
    """It finds at least nine tenths of the best on every machine, and much more on most."""
    shares = []
    for name, (machine, start) in MACHINES.items():
        best = machine.best()
        for seed in SEEDS:
            tries = searched(replace(machine, noise=NOISE, seed=seed), start)
            shares.append(machine.images_per_s(History(tries).best) / best)
            assert shares[-1] > 0.9, name
            assert len(tries) <= MOST_TRIES, name
    assert np.mean(shares) > 0.97
    assert np.mean(np.array(shares) > 0.95) > 0.8


def test_the_first_settings_are_measured_three_times_before_anything_else() -> None:
    machine, start = MACHINES["an H200"]
    tries = searched(machine, start)
    assert [one.settings == start for one in tries[: FIRST_TRIES + 1]] == [True, True, True, False]


def test_the_stage_that_requests_wait_for_is_first() -> None:
    machine = VirtualStages(16, {"preprocess": 40, "detector": 0.2, "postprocess": 1}, 2)
    tries = searched(machine, GPU)
    assert tries[FIRST_TRIES].settings == replace(GPU, preprocess=16), "as many as there are cores"
    machine = VirtualStages(16, {"preprocess": 2, "detector": 0.2, "postprocess": 14}, 2)
    tries = searched(machine, GPU)
    assert tries[FIRST_TRIES].settings == replace(GPU, postprocess=6)


def test_walls_of_the_same_height_are_moved_together() -> None:
    machine = VirtualStages(16, {"preprocess": 10, "detector": 2, "postprocess": 10}, 8)
    start = Settings(1, 1, 1, None, 1, 0)
    best = next(step for step in steps(searched(machine, start)) if step.taken)
    assert best.tried.settings == Settings(2, 2, 2, None, 1, 0)
    assert best.change == "preprocess 1 → 2, detector 1 → 2, postprocess 1 → 2"


def test_instances_on_the_cores_share_them_as_threads() -> None:
    machine, start = MACHINES["a detector that takes all cores"]
    tried = {(one.settings.detector, one.settings.threads) for one in searched(machine, start)}
    assert (16, 1) in tried
    assert all(count * threads <= machine.cores for count, threads in tried if threads)


def test_what_is_refused_is_never_the_best() -> None:
    machine = replace(h200(), most_detectors=2)
    tries = searched(machine, replace(GPU, detector=1))
    assert any(one.refused for one in tries)
    assert History(tries).best.detector <= 2
    refused = next(step for step in steps(tries) if step.tried.refused)
    assert not refused.taken


@pytest.mark.parametrize("name", MACHINES)
def test_it_ends_within_the_limits(name: str) -> None:
    machine, start = MACHINES[name]
    limits = machine.limits()
    tries = searched(replace(machine, noise=0.0), start)
    assert all(limits.allow(one.settings) for one in tries)
    assert next_settings(tries, limits) is None
    settings = [one.settings for one in tries]
    assert max(map(settings.count, settings)) <= FIRST_TRIES


def test_limits() -> None:
    limits = Limits(cores=1, detector=2, batch=16)
    assert limits.allow(Settings(2, 2, 2, 1, 16, MOST_DELAY_US)), "two are always tried"
    for beyond in ({"preprocess": 3}, {"detector": 3}, {"postprocess": 0}, {"threads": 2}, {"batch": 32}):
        assert not limits.allow(replace(CPU, **beyond)), beyond
    assert not limits.allow(replace(CPU, delay_us=2 * MOST_DELAY_US))


def flat(noise: float, seed: int) -> Callable[[Settings], Try]:
    """Measure a server that no setting changes."""
    machine, random = MACHINES["an H200"][0], np.random.default_rng(seed)

    def measure(settings: Settings) -> Try:
        return replace(machine.measure(settings), images_per_s=100 * float(np.exp(random.normal(0, noise))))

    return measure


def test_noise_is_not_taken_for_a_gain() -> None:
    """Few steps are taken where none gains, and the turns at the end see through those."""
    taken = better = 0
    for seed in range(100):
        measure = flat(0.05, seed)
        tries = search(measure, GPU, h200().limits(), float("inf"), lambda: 0.0)
        best = History(tries).best
        if best != GPU:
            taken += 1
            ratio = ratio_of_turns(take_turns(measure, GPU, best), GPU, best)
            better += ratio is not None and ratio.significant and ratio.value > 1
    assert taken > 0, "else this shows nothing of the turns"
    assert better <= 5


def test_a_promising_step_is_measured_again_in_turns_with_the_best() -> None:
    def tries_of(*rates: tuple[Settings, float]) -> list[Try]:
        seen = h200().measure(GPU)
        return [replace(seen, settings=settings, images_per_s=rate) for settings, rate in rates]

    other = replace(GPU, postprocess=6)
    history = tries_of((GPU, 100), (GPU, 103), (GPU, 97), (other, 107))
    limits = h200().limits()
    assert next_settings(history, limits) == other
    history += tries_of((other, 103))
    assert next_settings(history, limits) == other
    history += tries_of((other, 108))
    assert History(history).best == other, "three against three show it"
    assert next_settings(history, limits) not in (other, GPU, None)
