"""Where the time goes, in a report."""

from __future__ import annotations

from support.pages import Reader
from triptych import report
from triptych.report.blocks import Page


def test_where_it_is_from_is_shown(every_page: dict[str, Page]) -> None:
    traces, statistics = (report.markdown(every_page[name]) for name in ("run", "statistics"))
    assert "From the server's own traces" in traces
    assert "Means only" in statistics
    assert "Below zero" in statistics
    assert "Below zero" not in traces
    assert "## Percentiles of each owner" in traces
    assert "## Percentiles of each owner" not in statistics


def test_the_stages_of_a_video_are_owners(every_page: dict[str, Page]) -> None:
    text = Reader(report.html(every_page["video"])).text
    assert "track owns" in text
    for owner in ("read", "encode", "wait", "track", "write", "other"):
        assert f"{owner} " in text
