"""The gate's limits, and what a class may lose by chance."""

from __future__ import annotations

from dataclasses import replace

import pytest

from triptych_build.verify.limits import (
    Check,
    Gate,
    accuracy_checks,
    agreement_check,
    batch_check,
    latency_check,
    repeat_check,
)
from triptych_build.verify.metrics import Accuracy

BOXES = [{"category_id": 0, "iscrowd": 0}] * 144 + [{"category_id": 1, "iscrowd": 0}] * 49
TRUTH = {"categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}], "annotations": BOXES}


def accuracy_of(cat: float, map50_95: float = 0.5) -> Accuracy:
    return Accuracy(map50_95, 0.9, 0.9, 0.9, {"cat": cat, "dog": 0.5})


def test_int8_may_lose_more() -> None:
    assert Gate.for_precision("int8") == replace(Gate(), map_points=1.0)
    assert Gate.for_precision("fp16") == Gate.for_precision("fp32") == Gate()


@pytest.mark.parametrize("gate", [Gate(), Gate.for_precision("int8")])
def test_a_class_limit_says_what_allows_for_chance(gate: Gate) -> None:
    """12 points over the root of 144 boxes are one; 49 boxes are too few for a limit."""
    whole, cat = accuracy_checks(gate, accuracy_of(0.5), accuracy_of(0.479), TRUTH)
    assert (whole.passed, whole.limit_text) == (True, f"{gate.map_points:g}")
    assert cat.name == "AP drop of cat (points, 144 boxes)"
    assert (cat.passed, cat.limit, cat.limit_text) == (False, 2.0, "1.0 + 1 chance")


@pytest.mark.parametrize(("map50_95", "passed"), [(0.496, True), (0.494, False), (0.6, True)])
def test_half_a_point_of_map(map50_95: float, passed: bool) -> None:
    whole, _ = accuracy_checks(Gate(), accuracy_of(0.5), accuracy_of(0.5, map50_95), TRUTH)
    assert whole.passed is passed


def test_crowds_are_no_boxes_of_a_class() -> None:
    crowds = TRUTH | {"annotations": [row | {"iscrowd": 1} for row in BOXES]}
    assert len(accuracy_checks(Gate(), accuracy_of(0.5), accuracy_of(0.1), crowds)) == 1


def test_the_other_checks() -> None:
    assert agreement_check(Gate(), accuracy_of(0.5)).passed is False, "0.9 is less than 0.95"
    assert batch_check(Gate(), 0.96).passed
    assert repeat_check(0).passed
    assert not repeat_check(1).passed


def test_latency_without_a_limit_always_passes() -> None:
    assert latency_check(Gate(), 3.2) == Check("p95 latency (ms)", 3.2, None, True)
    assert latency_check(Gate(), 3.2).limit_text == ""
    assert not latency_check(Gate(p95_ms=3), 3.2).passed
