"""The tries one after the other: what ends them, what they must not be fooled by, and what becomes of the result."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from support.pages import make_run
from support.stages import GPU, VirtualStages, h200
from triptych.errors import MeasurementError
from triptych.measure.run_file import Run
from triptych.measure.tuning import Try, Tuning
from triptych.measure.tuning_runner import Servers, search, take_turns, tune
from triptych.measure.tuning_search import FIRST_TRIES, Limits
from triptych.serving.tuned import Settings


class Clock:
    """Time that passes only while something is measured."""

    def __init__(self, machine: VirtualStages, each_s: float) -> None:
        self.machine, self.each_s, self.now_s = machine, each_s, 0.0

    def measure(self, settings: Settings) -> Try:
        self.now_s += self.each_s
        return self.machine.measure(settings)

    def __call__(self) -> float:
        return self.now_s


def test_the_search_ends_when_its_time_is_up() -> None:
    clock = Clock(h200(), 10)
    tries = search(clock.measure, replace(GPU, preprocess=1), h200().limits(), 95, clock)
    assert len(tries) == 10
    assert clock() == 100, "what was begun is finished"


def test_without_time_the_first_settings_are_measured_all_the_same() -> None:
    clock = Clock(h200(), 10)
    tries = search(clock.measure, GPU, h200().limits(), 1, clock)
    assert [one.settings for one in tries] == [GPU] * FIRST_TRIES


def test_first_settings_that_are_refused_end_it() -> None:
    machine = replace(h200(), most_detectors=1)
    with pytest.raises(MeasurementError, match="what is served now cannot be measured: out of memory"):
        search(machine.measure, GPU, machine.limits(), 1e9, lambda: 0.0)


def test_turns() -> None:
    machine, best = h200(), replace(GPU, postprocess=6)
    turns = [turn.settings for turn in take_turns(machine.measure, GPU, best)]
    assert turns == [GPU, best, best, GPU, GPU, best, best, GPU]


@dataclass
class VirtualServers(Servers):
    """Servers on a machine whose best is planted."""

    machine: VirtualStages = field(default_factory=h200)
    first: Settings = GPU
    runs: list[Run] = field(default_factory=lambda: [make_run()])

    def start(self) -> Settings:
        return self.first

    def limits(self) -> Limits:
        return self.machine.limits()

    def measure(self, settings: Settings) -> Try:
        return self.machine.measure(settings)


class Quiet:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.tries = self.turns = 0

    def under_way(self, settings: Settings, turn: int) -> None:
        self.turns = max(self.turns, turn)

    def searched(self, one: Try) -> None:
        self.tries += 1


def tuned(tmp_path: Path, machine: VirtualStages, first: Settings = GPU) -> tuple[Tuning, Quiet]:
    quiet = Quiet()
    servers = VirtualServers(tmp_path, tmp_path, 64, 1, 5, tmp_path, machine=machine, first=first)
    return tune(servers, 60, ["triptych", "tune"], quiet), quiet


def test_what_is_better_is_to_be_served(tmp_path: Path) -> None:
    result, quiet = tuned(tmp_path, replace(h200(), noise=0.01))
    assert result.tuned is not None
    assert result.tuned.settings == result.best != result.start
    assert result.ratio is not None
    assert result.ratio.low > 1
    assert (quiet.tries, quiet.turns) == (len(result.tries), 8)
    assert result.exhausted
    assert str(result.best) in result.sentence
    assert str(result.ratio) in result.sentence


def test_nothing_better(tmp_path: Path) -> None:
    best = tuned(tmp_path, h200())[0].best
    result, quiet = tuned(tmp_path, h200(), best)
    assert (result.best, result.tuned, result.turns, quiet.turns) == (best, None, [], 0)
    assert result.sentence.startswith(f"nothing better was found than {best}, as served; ")


def test_what_the_turns_do_not_confirm_changes_nothing(tmp_path: Path) -> None:
    class Moody(VirtualStages):
        """It likes whatever is new, until the turns begin."""

        def measure(self, settings: Settings) -> Try:
            one = super().measure(settings)
            self.count = getattr(self, "count", 0) + 1
            return replace(one, images_per_s=100.0 + (self.count > FIRST_TRIES) * (20 - 0.1 * self.count))

    result, _ = tuned(tmp_path, h200(Moody))
    assert result.best != result.start
    assert result.tuned is None
    assert "seemed better, but that may be chance" in result.sentence


def test_turns_that_fail_change_nothing(tmp_path: Path) -> None:
    class Dying(VirtualStages):
        """It does not come back with its first settings."""

        def measure(self, settings: Settings) -> Try:
            self.count = getattr(self, "count", 0) + (settings == first)
            return Try(settings, refused="it died") if self.count > FIRST_TRIES else super().measure(settings)

    first = replace(GPU, preprocess=1, detector=1)
    result, _ = tuned(tmp_path, h200(Dying), first)
    assert result.tuned is None
    assert result.ratio is None
    assert "its turns with" in result.sentence
