"""What became of each source of a run."""

from __future__ import annotations

from support.measured import made_up, with_client, with_workload
from support.pages import Reader
from triptych import report
from triptych.measure.histogram import Histogram
from triptych.measure.run_file import VideoSide
from triptych.report.videos import video_sections


def test_each_source_has_its_figures_and_a_lost_one_is_shown() -> None:
    run = with_workload(made_up(), loop="video", users=4, sources=["street.avi", "camera 0"])
    street = VideoSide(Histogram([10.0] * 50), 2, 0, 5.0)
    camera = VideoSide(Histogram(), 0, 31, 0.0, "camera 0 gives no more pictures")
    text = Reader(report.html(report.of_run(with_client(run, videos=[street, camera]), "run"))).text
    assert "2 videos with 4 frames in flight" in text
    assert "street.avi 10.0 50 2 0" in text
    assert "camera 0 0.0 0 0 31 – –" in text
    assert "camera 0 ended too early: camera 0 gives no more pictures" in text


def test_a_load_test_has_no_sources() -> None:
    assert video_sections(made_up()) == []
