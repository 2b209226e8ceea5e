"""All experiments, in the order of the table."""

from __future__ import annotations

from truth import comparisons, gates, loadtests, slopes, sweeps
from truth.claims import Experiment

EXPERIMENTS: list[Experiment] = [
    *loadtests.EXPERIMENTS,
    *slopes.EXPERIMENTS,
    *comparisons.EXPERIMENTS,
    *sweeps.EXPERIMENTS,
    *gates.EXPERIMENTS,
]
