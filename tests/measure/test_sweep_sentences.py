"""What a sweep shows, in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.measured import confirmed, make_point, rates, users
from triptych.measure.sweep import Budget, LoadLevel, Point, Series
from triptych.measure.sweep_sentences import budget_sentence, knee_sentence, sentences


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        (
            users((1, 20, 50), (4, 49, 80), (8, 50, 152)),
            "the knee is at 4 users: 49.0 requests/s at p50 80.0 ms; "
            "at 8 users it is 2% more, and the p50 is 1.9x as long",
        ),
        (
            users((1, 20, 50), (2, 19, 100)),
            "the knee is at 1 user: 20.0 requests/s at p50 50.0 ms; "
            "at 2 users it is 5% less, and the p50 is 2.0x as long",
        ),
        (users((1, 20, 50), (2, 39, 51)), "the knee is at 2 users or beyond: 39.0 requests/s at p50 51.0 ms"),
        (
            rates((10, 30), (20, 90)),
            "the knee is at a rate of 10/s or below: 10.0 requests/s at p50 30.0 ms; "
            "at a rate of 20/s it is 100% more, and the p50 is 3.0x as long",
        ),
    ],
)
def test_the_knee_in_words(points: list[Point], sentence: str) -> None:
    assert knee_sentence(Series.of("", points, None)) == sentence


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        (
            rates((40, 20), (47, 50), (49, 90)),
            "the highest rate within p95 <= 100 ms is 47/s, confirmed by a longer run, p95 at most 100.0 ms with 99% "
            "confidence (at a rate of 49/s it is 180.0 ms)",
        ),
        (
            users((1, 20, 50), (4, 49, 50), (8, 50, 160)),
            "the highest concurrency within p95 <= 100 ms is 4 users: 49.0 requests/s (at 8 users it is 320.0 ms)",
        ),
        (
            rates((10, 20), (20, 30)),
            "every rate up to the highest keeps p95 <= 100 ms, 20/s, confirmed by a longer run, p95 at most 60.0 ms "
            "with 99% confidence; the limit is beyond",
        ),
        (
            [replace(point, confirmed=False) for point in rates((10, 20), (20, 90))],
            "which rate keeps p95 <= 100 ms is not known: the search ended before a longer run confirmed one",
        ),
        (users((1, 20, 51), (2, 20, 99)), "no concurrency keeps p95 <= 100 ms: at 1 user it is 102.0 ms"),
    ],
)
def test_the_budget_in_words(points: list[Point], sentence: str) -> None:
    budget = Budget(100, "p95")
    assert budget_sentence(Series.of("", points, budget), budget) == sentence


def test_there_is_no_knee_without_points() -> None:
    assert knee_sentence(Series("", [], None, None)) == ""


def test_settings_are_compared_with_the_first() -> None:
    budget = Budget(100, "p95")
    one = Series.of("1 instance", users((1, 20, 40), (4, 40, 100)), budget)
    two = Series.of("2 instances", users((1, 20, 44), (4, 78, 50)), budget)
    two.points[1] = replace(two.points[1], mean_batch=1.5)
    lines = sentences([one, two], budget)
    assert [line.split(": ")[0] for line in lines[:4]] == ["1 instance"] * 2 + ["2 instances"] * 2
    assert lines[4] == (
        "2 instances against 1 instance: 1.95x the requests/s at most (78.0 and 40.0); 78.0 and 20.0 within "
        "p95 <= 100 ms; p50 44.0 and 40.0 ms at 1 user, 50.0 and 100.0 ms at 4 users; mean batch 1.5 and 1.0 there"
    )
    assert len(lines) == 5
    assert not any("1 instance" in line for line in sentences([one], budget)), "it is the only one"


def test_where_nothing_was_answered_nothing_is_divided() -> None:
    loads = (LoadLevel(1), LoadLevel(2))
    dead = Series.of("a", [make_point(load, 0, 0, failures=5) for load in loads], Budget(10, "p50"))
    lines = sentences([dead, dead], Budget(10, "p50"))
    assert "a: no concurrency keeps p50 <= 10 ms: at 1 user 5 requests failed" in lines


def test_the_most_cameras_in_words() -> None:
    budget = Budget(100, "p95", 0.01)

    def point(users: int, dropped: float) -> Point:
        return make_point(LoadLevel(users, fps=5), users * 5, 20, fps=5, dropped=dropped)

    within = "p95 <= 100 ms and at most 1% of the frames dropped"
    assert sentences([Series.of("", [point(5, 0), confirmed(point(6, 0.005)), point(7, 0.034)], budget)], budget) == [
        f"6 cameras at 5 frames/s each are the most within {within}, confirmed by a longer run, p95 at most 40.0 ms "
        "and at most 0.7% of the frames dropped with 99% confidence (at 7 cameras 3.4% of the frames are dropped)"
    ]
    assert sentences([Series.of("", [point(1, 0.2)], budget)], budget) == [
        f"not even 1 camera at 5 frames/s keeps {within}: 20.0% of the frames are dropped"
    ]
    assert sentences([Series.of("", [point(1, 0), point(2, 0)], budget)], budget) == [
        f"how many cameras at 5 frames/s keep {within} is not known: the search ended before a longer run confirmed it"
    ]
