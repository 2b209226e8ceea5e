"""What a terminal shows: tables, and a sweep while it is measured."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from rich.console import Console, RenderableType

from support.measured import in_turn, made_up, make_point, traced_requests, users, with_environment
from support.power import throttled_run
from triptych.measure.attribution import from_requests, from_statistics
from triptych.measure.comparison import compare_sides
from triptych.measure.histogram import Histogram
from triptych.measure.pool import Side
from triptych.measure.run_file import ServedDetector
from triptych.measure.sweep import Budget, LoadLevel, Series, Setting
from triptych.measure.window import Window
from triptych.report.terminal import (
    SweepProgress,
    attribution_table,
    comparison_table,
    power_table,
    run_line,
    sweep_table,
)
from triptych.wire.statistics import Counters

MS = 1_000_000


def printed(renderable: RenderableType) -> list[str]:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text().splitlines()


def test_owners_and_parts_with_their_share() -> None:
    lines = printed(attribution_table(from_requests(traced_requests(np.full(10, 30.0)), Histogram([35.0] * 10))))
    rows = [line for line in lines if "30.00" in line]
    assert [row.split()[1] for row in rows] == ["detector", "infer"]
    assert "86%" in rows[0], "30 of 35 ms"


def test_what_each_device_took() -> None:
    run = throttled_run()
    assert run.power
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in printed(power_table(run.power)) if line[0] == "│"
    ]
    gpu = ["93%", "21400", "1890", "2619", "71", "634 of 700", "6,340", "100", "3 of 10 intervals"]
    assert [row[1:] for row in rows] == [gpu, ["–", "–", "–", "–", "–", "120", "1,200", "100", "–"]]
    assert [row[0] for row in rows] == ["NVIDIA H100 80GB HBM3 (GPU-0), by NVML", "package-0 (intel-rapl:0), by RAPL"]


def test_means_from_statistics() -> None:
    counters = {
        "detection": Counters(requests=4, total_ns=4 * 20 * MS),
        "detector": Counters(4, 0, 4, 4, 4 * 16 * MS, 4 * MS, 4 * 2 * MS, 4 * 10 * MS, 4 * 3 * MS),
    }
    lines = printed(attribution_table(from_statistics(Window(Histogram([23.0] * 4), 2.0, counters))))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert rows[5:10] == [
        ["detector", "16.00", "70%"],
        ["queue", "1.00", "4%"],
        ["input", "2.00", "9%"],
        ["infer", "10.00", "43%"],
        ["output", "3.00", "13%"],
    ]
    assert rows[-3:] == [
        ["ensemble overhead", "4.00", "17%"],
        ["network and client", "3.00", "13%"],
        ["client, end to end", "23.00", "100%"],
    ]
    assert "Means only, from the server's statistics: no traces can be read here." in " ".join(" ".join(lines).split())


def test_an_overhead_below_zero_is_explained() -> None:
    attribution = from_statistics(Window(Histogram([23.0]), 1.0, {"detector": Counters(requests=1, total_ns=MS)}))
    text = " ".join(" ".join(printed(attribution_table(attribution))).split())
    assert "Below zero: the last stage's output goes on after the ensemble has answered." in text


def test_an_empty_window_divides_by_nothing() -> None:
    assert printed(attribution_table(from_statistics(Window(Histogram(), 0.0, {}))))


@pytest.mark.parametrize("answered", [True, False])
def test_a_sweep(answered: bool) -> None:
    loads = [LoadLevel(1), LoadLevel(2)]
    dead = [make_point(load, 0, 0, failures=5) for load in loads]
    series = Series.of("as served", users((1, 20, 40), (2, 39, 41)) if answered else dead, Budget(100, "p95"))
    rows = [line for line in printed(sweep_table(series)) if "user" in line]
    assert len(rows) == 2
    assert ("knee, last within budget" in rows[1]) == answered
    assert ("5 failed" in rows[1]) != answered


def test_a_sweep_while_it_is_measured_leaves_its_tables() -> None:
    console = Console(width=140, record=True, file=io.StringIO(), force_terminal=True)
    points = users((1, 20, 40), (2, 39, 41))
    with SweepProgress(console, None) as progress:
        progress.under_way(Setting(2), None, [])
        progress.under_way(Setting(2), LoadLevel(2), points[:1])
        progress.finished(Setting(2), points)
        progress.finished(Setting(3), [])
    text = console.export_text()
    assert "Detector: 2 instances" in text
    assert "2 users" in text


def test_runs_side_by_side() -> None:
    a, b = in_turn(noise=0.05, detector=20.0)
    c = Side("C", [made_up(9, 0.05, slower=1.2)])
    lines = printed(comparison_table([compare_sides(a, side) for side in (b, c)]))
    assert "".join(lines[2].split()) == "┃owner┃A┃B┃againstA┃C┃againstA┃"
    (detector,) = (line for line in lines if line.startswith("│ detector "))
    assert re.search(r"4\.0\dx \(3\.9\d to 4\.0\d\)", detector)
    assert "0.83x (chance unknown)" in detector


def test_a_line_says_which_detector_and_load() -> None:
    manifest = {"adapted": {"source": "pcb.onnx"}, "precision": "int8", "target": "openvino"}
    run = with_environment(made_up(), detector=ServedDetector(3, "python", 2, 16, manifest))
    assert run_line(run) == "pcb.onnx int8 version 3 on openvino; closed loop of 1, 200 requests, 2026-01-02T03:04"
    assert run_line(with_environment(run, detector=None)).startswith("an unknown detector; ")
