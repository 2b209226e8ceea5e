"""The gate's limits: an interval is held to each of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from triptych_build.verify.figures import LOST, MAP, PRECISION, RECALL, SCORE, class_figure
from triptych_build.verify.latency import Latency
from triptych_build.verify.limits import (
    Check,
    Gate,
    Outcome,
    batch_check,
    calibrated_check,
    cut_check,
    images_check,
    latency_check,
    loss_checks,
    overall,
    repeat_check,
)
from triptych_build.verify.matches import Reals


def truth(cats: int, dogs: int = 0, crowd: int = 0) -> dict[str, Any]:
    """Boxes of cats and dogs, each in an image of its own, of 400."""
    labels = [0] * cats + [1] * dogs
    rows = [{"image_id": image, "category_id": label, "iscrowd": crowd} for image, label in enumerate(labels, 1)]
    names = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    return {"images": [{"id": number} for number in range(1, 401)], "categories": names, "annotations": rows}


def spread(measured: float, deviation: float) -> Reals:
    """A loss whose resamples have this standard deviation."""
    return np.array([measured, *(measured + deviation * np.array([1, -1] * 100))])


def losses(**changes: Reals) -> dict[str, Reals]:
    none = spread(0, 0)
    return {MAP: none, PRECISION: none, RECALL: none, SCORE: none, LOST: none, class_figure(0): none} | changes


def checked(changes: dict[str, Reals], gate: Gate = Gate(), *, has_labels: bool = True) -> dict[str, Check]:  # noqa: B008
    found = loss_checks(gate, losses(**changes), truth(40), 0.25, has_labels=has_labels)
    return {check.figure: check for check in found}


def test_int8_may_lose_more() -> None:
    assert Gate.for_precision("int8") == replace(Gate(), map_points=1.0, served_points=2.0, score_points=4.0)
    assert Gate.for_precision("fp16") == Gate.for_precision("fp32") == Gate()


@pytest.mark.parametrize(
    ("measured", "deviation", "outcome"),
    [
        (0.3, 0.1, "passed"),  # 0.14 to 0.46
        (0.3, 0.2, "too few"),  # -0.03 to 0.63
        (0.7, 0.2, "too few"),
        (0.7, 0.1, "refused"),  # 0.54 to 0.86
        (-3, 1, "passed"),
    ],
)
def test_the_whole_interval_is_held_to_the_limit(measured: float, deviation: float, outcome: Outcome) -> None:
    check = checked({MAP: spread(measured, deviation)}, Gate(map_points=0.5))[MAP]
    assert check.outcome == outcome
    assert check.interval == pytest.approx((measured - 1.645 * deviation, measured + 1.645 * deviation), abs=1e-3)
    assert bool(check.needed) is (outcome == "too few")


def test_a_score_that_may_change_either_way_has_two_ways_to_be_beyond_chance() -> None:
    check = checked({SCORE: spread(1.5, 0.1)})[SCORE]
    assert check.interval == pytest.approx((1.5 - 0.196, 1.5 + 0.196), abs=1e-3)


@pytest.mark.parametrize("figure", [PRECISION, RECALL])
@pytest.mark.parametrize(("boxes", "outcome"), [(200, "too few"), (300, "passed")])
def test_of_boxes_of_which_none_is_lost_some_may_be(figure: str, boxes: int, outcome: Outcome) -> None:
    """Up to 2.7 of them: resamples in which nothing is lost would say that nothing can be."""
    found = loss_checks(Gate(), losses(), truth(boxes), 0.25, has_labels=True)
    check = next(check for check in found if check.figure == figure)
    assert check.interval == pytest.approx((-270.6 / boxes, 270.6 / boxes), rel=1e-3)
    assert check.outcome == outcome
    assert check.needed == (0 if outcome == "passed" else 600)


def test_few_losses_may_be_a_few_more() -> None:
    """Of 5 of 200 boxes Wilson's interval for a share reaches to 0.0504 at 95% on one side (JASA 1927), here as far."""
    deviation = 100 * (0.025 * 0.975 / 200) ** 0.5
    found = loss_checks(Gate(), losses(**{RECALL: spread(2.5, deviation)}), truth(200), 0.25, has_labels=True)
    check = next(check for check in found if check.figure == RECALL)
    assert check.interval
    assert check.interval[1] == pytest.approx(5.04, abs=0.1)


def test_how_many_images_would_tell() -> None:
    """400 images give 0.7 +- 0.329; to part it from 0.5, the interval must be 0.2: 400 * (0.329 / 0.2)^2 = 1082."""
    assert checked({MAP: spread(0.7, 0.2)})[MAP].needed == 2000


def test_a_class_is_refused_only_beyond_chance() -> None:
    name = class_figure(0)
    assert checked({name: spread(8, 5)})[name].outcome == "passed"
    check = checked({name: spread(8, 1)})[name]
    assert (check.name, check.outcome, check.limit) == ("AP drop of cat (points, 40 boxes)", "refused", 1.0)


def test_the_more_classes_the_less_each_is_suspected() -> None:
    both = losses(**{class_figure(0): spread(3.2, 1.2), class_figure(1): spread(0, 0)})
    one, *_ = (check for check in loss_checks(Gate(), both, truth(40, 9), 0.25, has_labels=True) if "cat" in check.name)
    other, *_ = (
        check for check in loss_checks(Gate(), both, truth(40, 40), 0.25, has_labels=True) if "cat" in check.name
    )
    assert (one.outcome, other.outcome) == ("refused", "passed")


def test_crowds_are_no_boxes_of_a_class() -> None:
    found = loss_checks(Gate(), losses(), truth(40, crowd=1), 0.25, has_labels=True)
    assert not any("AP drop" in check.name for check in found)


def test_a_class_that_is_no_longer_found() -> None:
    assert checked({LOST: spread(1, 0)})[LOST].outcome == "refused"


def test_without_labels_everything_is_held_to_the_agreement() -> None:
    found = checked({}, Gate(agreement=0.9), has_labels=False)
    assert [found[figure].limit for figure in (MAP, PRECISION, RECALL, class_figure(0))] == [pytest.approx(10)] * 4
    assert found[MAP].name == "agreement lost with the source, IoU 0.50 to 0.95 (points)"


def test_images_must_show_something() -> None:
    files = [str(number).encode() for number in range(400)]
    assert images_check(truth(19), files).outcome == "too few"
    assert images_check(truth(20), files).outcome == "passed"
    assert images_check(truth(20), [files[0], *files[:-1]]).outcome == "too few", "one of them is there twice"


def test_the_other_checks() -> None:
    assert not batch_check(Gate(), 0.94).passed
    assert batch_check(Gate(), 0.96).passed
    assert repeat_check(0).passed
    assert not repeat_check(1).passed
    assert cut_check(3, 40).passed
    assert calibrated_check([]).passed
    assert calibrated_check(["a", "b", "c", "d"]).note.startswith(
        "It was calibrated on images that it is verified with"
    )
    assert "a, b, c and 1 more;" in calibrated_check(["a", "b", "c", "d"]).note


def test_latency_without_a_limit_always_passes() -> None:
    latency = Latency(20, 3.0, 3.2, None)
    assert latency_check(Gate(), latency) == Check("p95 latency (ms)", 3.2, None, "passed")
    assert latency_check(Gate(), latency).limit_text == ""


@pytest.mark.parametrize(
    ("at_most_ms", "outcome", "note"),
    [
        (3.9, "passed", ""),
        (4.5, "refused", "With 99% confidence it is at most 4.5 ms, and that has to be within the limit"),
        (None, "refused", "Too few requests to bound the p95: 390, of which one in 4.0 tells something of its own; "),
    ],
)
def test_a_latency_has_to_be_shown_to_be_within_its_limit(at_most_ms: float | None, outcome: str, note: str) -> None:
    check = latency_check(Gate(p95_ms=4), Latency(390, 3.0, 3.2, at_most_ms, 4.0))
    assert (check.measured, check.outcome) == (3.2, outcome)
    assert check.note.startswith(note)
    assert bool(check.note) == bool(note)


def test_a_latency_above_its_limit_needs_no_bound() -> None:
    assert latency_check(Gate(p95_ms=3), Latency(130, 3.0, 3.2, 3.5)).note == ""
    assert not latency_check(Gate(p95_ms=3), Latency(130, 3.0, 3.2, 3.5)).passed


def test_one_refusal_refuses() -> None:
    passed, few, refused = (Check("", 0, 0, outcome) for outcome in ("passed", "too few", "refused"))
    assert overall([passed]) == "passed"
    assert overall([passed, few]) == "too few"
    assert overall([few, refused, passed]) == "refused"
