"""Claims: a figure of a command, how sure the command says that it is, and how often it held."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

SEEDS = 200

LEVEL = 0.01
"""A claim is broken where so few hits or fewer would come with this chance if it held as often as is stated."""

LEAST_TOLD = 0.5
"""Of at least this share of the seeds a command must say something: an answer that is never given is never wrong."""

Held = Mapping[str, bool | None]
"""By figure, whether it held in one trial; None where the command said that it cannot tell."""


@dataclass(frozen=True)
class Experiment:
    """Something planted, and the figures that a command gives of it.

    Attributes:
        command: which.
        planted: what, in a few words.
        trial: of one seed, which figures held.
        stated: by figure, how often it must hold, 0..1; 1: always.
        seeds: how many trials there are.
        quick: how many there are in the short form; 0: it has no part in it.
    """

    command: str
    planted: str
    trial: Callable[[int], Held]
    stated: Mapping[str, float]
    seeds: int = SEEDS
    quick: int = 0

    @property
    def name(self) -> str:
        """For `--only` and for pytest."""
        return f"{self.command}: {self.planted}"


@dataclass(frozen=True)
class Row:
    """How often a figure held.

    Attributes:
        experiment: of which.
        figure: its name.
        stated: how often it must hold, 0..1.
        held: how often it did.
        told: how often the command gave it.
        trials: how often it was asked.
    """

    experiment: Experiment
    figure: str
    stated: float
    held: int
    told: int
    trials: int

    @property
    def chance(self) -> float:
        """The chance of so few hits or fewer if the claim held as often as is stated (binomial)."""
        return float(stats.binom.cdf(self.held, self.told, self.stated))

    @property
    def broken(self) -> str:
        """Why the claim is broken; empty if it is not."""
        if self.told < LEAST_TOLD * self.trials:
            return f"told in {self.told} of {self.trials}"
        return f"held in {self.held} of {self.told}" if self.chance < LEVEL else ""


def tally(experiment: Experiment, seeds: int) -> list[Row]:
    """Try an experiment so many times."""
    trials = [experiment.trial(seed) for seed in range(seeds)]
    rows = []
    for figure, stated in experiment.stated.items():
        told = [trial[figure] for trial in trials if trial[figure] is not None]
        rows.append(Row(experiment, figure, stated, sum(map(bool, told)), len(told), seeds))
    return rows


def table(rows: Sequence[Row]) -> str:
    """Return a table in Markdown."""
    lines = ["| command | planted | figure | stated | held | broken |", "| --- | --- | --- | ---: | ---: | --- |"]
    lines += [
        f"| {row.experiment.command} | {row.experiment.planted} | {row.figure} | {_percent(row.stated)} | "
        f"{row.held} of {row.told}{_silent(row)} | {row.broken and 'yes'} |"
        for row in rows
    ]
    return "\n".join(lines)


def _percent(share: float) -> str:
    return "always" if share == 1 else f"{100 * share:.3g}%"


def _silent(row: Row) -> str:
    return f" ({row.trials - row.told} not told)" if row.told < row.trials else ""


def broken_claims(rows: Iterable[Row]) -> list[str]:
    """Return a sentence for each claim that is broken."""
    return [f"{row.experiment.name}: {row.figure}: {row.broken}" for row in rows if row.broken]
