"""Several sources at the same time: each has its file, and what becomes of one does not end the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import pytest

from support.fake_server import LOST, FakeServer, Fault
from support.videos import make_pictures, make_video, read_lines
from triptych.client import DetectionClient
from triptych.errors import ContractError, ImageError, InvalidRequest, ServerUnavailable, TriptychError
from triptych.video.detecting import PatientDetector
from triptych.video.frames import Shot
from triptych.video.pipeline import Tracked
from triptych.video.together import Crew, Together, track_files
from triptych.video.tracking import Settings, Tracking

MakeCrew = Callable[..., Crew]


@pytest.fixture
def make_crew(server: FakeServer) -> Iterator[MakeCrew]:
    """Sources are tracked with the fake server, a frame at a time."""
    with DetectionClient(server.address, retries=0) as client:

        def make(retry_s: float = 0.0, **options: object) -> Crew:
            stop = threading.Event()
            return Crew(PatientDetector(client, retry_s, print, stop), Settings(in_flight=1), stop=stop, **options)  # type: ignore[arg-type]

        yield make


class Blinking:
    """A camera that gives so many frames and is lost; before the last of them it waits."""

    frames_per_s = 25.0

    def __init__(self, frames: int, wait: Callable[[], object] = lambda: None) -> None:
        self.frames, self.wait = frames, wait

    def shots(self) -> Iterator[Shot]:
        for number in range(self.frames):
            if number == self.frames - 1:
                self.wait()
            yield Shot(None, partial(np.full, (40, 60, 3), number, np.uint8))
        raise ImageError("camera 0 gives no more pictures")

    def close(self) -> None:
        pass


def jobs_in(directory: Path, *sources: object) -> list[tuple[str, Path]]:
    names = [str(source) for source in sources]
    return list(zip(names, track_files(names, directory), strict=True))


def frames_of(directory: Path, stem: str) -> list[int]:
    return [line["frame"] for line in read_lines(directory / f"{stem}.jsonl")]


def test_each_source_has_a_file_of_its_own_name(tmp_path: Path) -> None:
    sources = ["a/street.avi", "b/street.mp4", "street-2.avi", "Street.mkv", "0", "rtsp://u:p@host:554/live"]
    names = [path.name for path in track_files(sources, tmp_path)]
    assert names == [
        "street.jsonl",
        "street-2.jsonl",
        "street-2-2.jsonl",
        "Street-3.jsonl",
        "camera-0.jsonl",
        "host-554-live.jsonl",
    ]


def test_four_sources_are_all_tracked_to_their_ends(make_crew: MakeCrew, server: FakeServer, tmp_path: Path) -> None:
    heard: dict[str, list[int]] = {}

    def watch(tracking: Tracking) -> Callable[[Tracked], None]:
        numbers = heard.setdefault(tracking.source.name, [])
        return lambda tracked: numbers.append(tracked.line.frame)

    sources = [make_video(tmp_path / f"{number}.avi", 3 + number) for number in range(3)]
    sources.append(make_pictures(tmp_path / "pictures", 4))
    together = make_crew(watch=watch).track(jobs_in(tmp_path / "out", *sources))
    assert [outcome.answered for outcome in together.outcomes] == [3, 4, 5, 4]
    assert [outcome.source for outcome in together.outcomes] == list(map(str, sources))
    assert heard == {str(source): list(range(frames)) for source, frames in zip(sources, (3, 4, 5, 4), strict=True)}
    for stem, frames in (("0", 3), ("1", 4), ("2", 5), ("pictures", 4)):
        assert frames_of(tmp_path / "out", stem) == list(range(frames))
    assert len({request.id for request in server.requests}) == 16
    assert together.error() is None
    assert together.sentences()[0].startswith("16 frames of 4 sources in ")


def test_they_are_tracked_at_the_same_time(make_crew: MakeCrew, tmp_path: Path) -> None:
    """Each waits for the first frame of the other; one after the other, the first would wait for ever."""
    begun = threading.Barrier(2, timeout=30)

    def watch(_tracking: Tracking) -> Callable[[Tracked], None]:
        return lambda tracked: None if tracked.line.frame else (begun.wait(), None)[1]

    sources = [make_video(tmp_path / "a.avi", 3), make_video(tmp_path / "b.avi", 3)]
    together = make_crew(watch=watch).track(jobs_in(tmp_path, *sources))
    assert together.error() is None


def test_a_camera_that_is_lost_does_not_end_the_others(
    make_crew: MakeCrew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triptych.video.sources.Camera", lambda *_: Blinking(2))
    monkeypatch.chdir(tmp_path)
    lost, said = threading.Event(), list[str]()

    def say(sentence: str) -> None:
        said.append(sentence)
        lost.set()

    def watch(tracking: Tracking) -> Callable[[Tracked], None]:
        return lambda _: None if tracking.source.live else (lost.wait(30), None)[1]

    video = make_video(tmp_path / "a.avi", 5)
    together = make_crew(say=say, watch=watch).track(jobs_in(tmp_path, video, 0, tmp_path / "missing.avi"))
    assert frames_of(tmp_path, "a") == list(range(5)), "it went on after the camera was lost"
    assert frames_of(tmp_path, "camera-0")[-1] == 1
    camera = together.outcomes[1]
    assert camera.answered + camera.dropped == 2
    assert not (tmp_path / "missing.jsonl").exists()
    assert [outcome.begun for outcome in together.outcomes] == [True, True, False]
    assert "camera 0 gives no more pictures; the other sources go on" in said
    error = together.error()
    assert type(error) is TriptychError
    assert str(error).startswith("2 of 3 sources ended too early: camera 0 gives no more pictures; ")
    assert "missing.avi" in str(error)


def test_each_source_is_resumed_where_its_own_file_ends(make_crew: MakeCrew, tmp_path: Path) -> None:
    sources = [make_video(tmp_path / "a.avi", 4), make_video(tmp_path / "b.avi", 6)]
    first = make_crew()
    first.settings = Settings(frames=2, in_flight=1)
    first.track(jobs_in(tmp_path, *sources))
    assert frames_of(tmp_path, "a") == frames_of(tmp_path, "b") == [0, 1]
    with pytest.raises(ContractError, match=r"a\.jsonl is not empty; continue it with --resume"):
        make_crew().track(jobs_in(tmp_path, *sources))
    (tmp_path / "b.jsonl").unlink()
    together = make_crew(resume=True).track(jobs_in(tmp_path, *sources))
    assert [outcome.totals.frames for outcome in together.outcomes] == [2, 6]
    assert frames_of(tmp_path, "a") == list(range(4))
    assert frames_of(tmp_path, "b") == list(range(6))


def test_a_file_that_holds_something_is_known_before_any_source_begins(make_crew: MakeCrew, tmp_path: Path) -> None:
    sources = [make_video(tmp_path / "a.avi", 4), make_video(tmp_path / "b.avi", 6)]
    (tmp_path / "b.jsonl").write_text("something\n")
    with pytest.raises(ContractError, match=r"b\.jsonl is not empty"):
        make_crew().track(jobs_in(tmp_path, *sources))
    assert not (tmp_path / "a.jsonl").exists()


def test_a_server_that_is_gone_ends_all_of_them(make_crew: MakeCrew, server: FakeServer, tmp_path: Path) -> None:
    server.everywhere = LOST
    said = list[str]()
    together = make_crew(say=said.append).track(
        jobs_in(tmp_path, make_video(tmp_path / "a.avi", 4), make_video(tmp_path / "b.avi", 4))
    )
    assert len(together.lost) == 2
    assert isinstance(together.error(), ServerUnavailable)
    assert said == [], "nobody goes on"


def test_what_the_server_refuses_counts_more_than_a_lost_camera(
    make_crew: MakeCrew, server: FakeServer, tmp_path: Path
) -> None:
    server.everywhere = Fault(grpc.StatusCode.INVALID_ARGUMENT, "no")
    together = make_crew().track(jobs_in(tmp_path, tmp_path / "missing.avi", make_video(tmp_path / "a.avi", 4)))
    assert isinstance(together.error(), InvalidRequest)


def test_a_stop_ends_all_of_them_after_the_frame_at_hand(make_crew: MakeCrew, tmp_path: Path) -> None:
    crew = make_crew()
    crew.watch = lambda _tracking: lambda tracked: crew.stop.set() if tracked.line.frame == 1 else None
    together = crew.track(jobs_in(tmp_path, make_video(tmp_path / "a.avi", 40), make_video(tmp_path / "b.avi", 40)))
    assert all(outcome.stopped for outcome in together.outcomes)
    assert max(outcome.totals.frames for outcome in together.outcomes) == 2


def test_a_fault_of_our_own_is_not_taken_for_a_lost_source(make_crew: MakeCrew, tmp_path: Path) -> None:
    def fail(_tracked: Tracked) -> None:
        raise ZeroDivisionError

    crew = make_crew(watch=lambda _: fail)
    with pytest.raises(ZeroDivisionError):
        crew.track(jobs_in(tmp_path, make_video(tmp_path / "a.avi", 4), make_video(tmp_path / "b.avi", 4)))
    assert crew.stop.is_set()


def test_one_source_alone_ends_with_its_own_error(make_crew: MakeCrew, tmp_path: Path) -> None:
    together: Together = make_crew().track(jobs_in(tmp_path, tmp_path / "missing.avi"))
    assert isinstance(together.error(), ImageError)
