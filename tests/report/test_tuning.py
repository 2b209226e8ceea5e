"""The page and the table of a search for settings."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from support.pages import HOSTILE, make_tuning
from triptych import report
from triptych.report.blocks import Charts
from triptych.report.terminal import TuningProgress, tuning_table
from triptych.report.tuning import is_noisy, noise_sentence


def test_the_page() -> None:
    page = report.of_tuning(make_tuning(), "tuning")
    text = report.markdown(page)
    assert page.headline.startswith("preprocess 2, detector 2 of 1 thread, postprocess 1, no batching: 48.0 images/s")
    for part in (
        "8 users that wait for each answer, 2 images a request, 5 s each",
        "| 0 | as served: preprocess 1, detector 2 of 1 thread, postprocess 1, no batching | 40.0 |",
        "| 1 | again | 40.4 |",
        "| 3 | preprocess 1 → 2 | 48.0 | 20.0 | 30.0 | preprocess 80% |",
        "preprocess 75%, detector 75%, postprocess 75%",
        "refused: no memory",
        "In turns",
        "triptych tune",
    ):
        assert part in text


def test_the_curve_is_what_was_measured_and_the_best_so_far() -> None:
    (curve,) = (block for block in report.of_tuning(make_tuning(), "").sections[0].blocks if isinstance(block, Charts))
    (chart,) = curve.charts
    measured, best = chart.lines
    assert [y for _, y in measured.points] == [40.0, 40.4, 39.6, 48.0], "what was refused has no figure"
    assert [round(y, 1) for _, y in best.points] == [40.0, 40.2, 40.0, 48.0, 48.0]
    assert [mark.points for mark in chart.marks] == [[(3.0, 48.0)]]
    (flat,) = (
        block for block in report.of_tuning(make_tuning(gain=1.0), "").sections[0].blocks if isinstance(block, Charts)
    )
    assert flat.charts[0].marks == []


def test_the_table() -> None:
    console = Console(width=160, record=True)
    with console.capture() as shown:
        console.print(tuning_table(make_tuning().tries))
    text = shown.get()
    assert "From preprocess 1, detector 2 of 1 thread, postprocess 1, no batching" in text
    assert "│    3 │ preprocess 1 → 2 │     48.0 │   30.0 │ preprocess 80% │ taken generator busy" in text
    assert "refused: no memory" in text
    assert "<script>" in text, "hostile words stay words"


def test_the_progress_leaves_the_table() -> None:
    console = Console(width=160, record=True)
    tuning = make_tuning()
    with TuningProgress(console) as progress:
        for one in tuning.tries:
            progress.under_way(one.settings, 0)
            progress.searched(one)
        progress.under_way(tuning.best, 1)
    assert "preprocess 1 → 2" in console.export_text()


def test_nothing_is_left_of_a_search_that_did_not_begin() -> None:
    console = Console(width=160, record=True)
    with TuningProgress(console):
        pass
    assert "step" not in console.export_text()


def test_noise() -> None:
    tuning = make_tuning()
    assert noise_sentence(tuning).startswith("the same settings, measured again, differed by 1.0% (standard deviation)")
    assert not is_noisy(tuning)
    first = tuning.tries[0]
    assert is_noisy(replace(tuning, tries=[first, replace(first, images_per_s=50.0), *tuning.tries[2:]]))


def test_hostile_words_are_escaped() -> None:
    assert HOSTILE not in report.html(report.of_tuning(make_tuning(gain=1.0), HOSTILE))
