"""What became of each video, camera or stream, as a section of a report."""

from __future__ import annotations

from triptych.measure.run_file import Run, VideoSide
from triptych.report.blocks import Note, Row, Section, Table


def video_sections(run: Run) -> list[Section]:
    """Return rate, answers, failures, drops and latency of each source; nothing of a run that tracked none."""
    videos = list(zip(run.workload.sources, run.client.videos, strict=True))
    if not videos:
        return []
    lost = [Note(f"{name} ended too early: {video.lost}", "bad") for name, video in videos if video.lost]
    heading = ["", "frames/s", "answered", "failed", "dropped", "p50 ms", "p95 ms"]
    return [Section("Sources", [*lost, Table(heading, [_row(name, video) for name, video in videos])])]


def _row(name: str, video: VideoSide) -> Row:
    latencies = video.latencies
    percentiles = [f"{latencies.percentile_ms(percent):.1f}" if latencies.count else "–" for percent in (50, 95)]
    counts = (latencies.count, video.failed, video.dropped)
    return Row([name, f"{video.frames_per_s:.1f}", *map(str, counts), *percentiles])
