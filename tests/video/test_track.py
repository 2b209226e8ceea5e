"""`triptych track` and its parts: sources, order, tracker, journal, and a server that goes away."""

from __future__ import annotations

import http.server
import json
import random
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import grpc
import numpy as np
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from support.fake_server import LOST, FakeServer, Fault
from triptych.cli.track import track
from triptych.client import DetectionClient
from triptych.detections import Detection, Detections
from triptych.errors import ContractError, ImageError, InvalidRequest, ServerUnavailable, TriptychError
from triptych.video import pipeline
from triptych.video.detecting import Answer, PatientDetector
from triptych.video.journal import Done, Journal, Line, read_done
from triptych.video.pipeline import in_order
from triptych.video.recording import since_restart
from triptych.video.sources import Live, Pictures, Video, open_source
from triptych.video.stages import STAGES, Totals, bound_sentence, busy_shares
from triptych.video.tracker import Tracker
from triptych.wire.statistics import Counters

app = typer.Typer()
app.command()(track)

Run = Callable[..., Result]


@pytest.fixture
def run(server: FakeServer) -> Run:
    def call(*arguments: object) -> Result:
        runner = CliRunner(env={"COLUMNS": "160"})
        return runner.invoke(app, [*map(str, arguments), "--address", server.address])

    return call


def make_pictures(directory: Path, count: int) -> Path:
    directory.mkdir(exist_ok=True)
    for number in range(count):
        picture = np.full((40, 60, 3), number, np.uint8)
        (directory / f"{number:03}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    return directory


def make_video(path: Path, count: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for number in range(count):
        writer.write(np.full((48, 64, 3), number, np.uint8))
    writer.release()
    return path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def found(x: float, score: float = 0.9) -> Detection:
    return Detection("person", 0, score, (x, 10.0, x + 40.0, 50.0))


# Order


def test_results_come_in_order_whatever_each_takes() -> None:
    delays = random.Random(1)
    most, running, lock = 0, 0, threading.Lock()

    def slow(item: int) -> int:
        nonlocal most, running
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(delays.uniform(0, 0.01))
        with lock:
            running -= 1
        return item * 2

    assert list(in_order(slow, iter(range(60)), 4, 1)) == [(item, item * 2) for item in range(60)]
    assert 1 < most <= 4


def test_the_next_item_is_worked_on_while_the_caller_is_busy() -> None:
    entered = [threading.Event() for _ in range(3)]
    results = in_order(lambda item: entered[item].set(), iter(range(3)), 1, 0)
    for item, _ in results:
        assert item == 2 or entered[item + 1].wait(10)


def test_what_fails_is_raised_in_its_turn_and_nothing_is_begun_after_it() -> None:
    begun = []

    def fail_at_three(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise ServerUnavailable("gone", None)
        return item

    given = []
    with pytest.raises(ServerUnavailable):
        given.extend(item for item, _ in in_order(fail_at_three, iter(range(100)), 2, 1))
    assert given == [0, 1, 2]
    assert max(begun) <= 6


# Sources


class FakeCamera:
    """Looks like a `cv2.VideoCapture` of so many frames; each is grabbed when the test says so."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.at = -1
        self.grabs = threading.Semaphore(0)
        self.seen = threading.Semaphore(0)

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def get(self, _property: int) -> float:
        return 0.0

    def grab(self) -> bool:
        self.seen.release()
        self.grabs.acquire()
        self.at += 1
        return self.at < self.frames

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        return (False, None) if self.at == 2 else (True, np.full((4, 6, 3), self.at, np.uint8))

    def release(self) -> None:
        pass

    def advance(self, frames: int) -> None:
        """Let it grab so many frames, and wait until the last of them is kept: it asks for another then."""
        for _ in range(frames):
            self.seen.acquire()
            self.grabs.release()


def test_of_a_camera_only_the_newest_frame_is_taken() -> None:
    camera = FakeCamera(9)
    source = Live("camera", lambda: camera)
    frames = source.read(100)
    threading.Timer(0.05, camera.advance, (1,)).start()
    assert next(frames).number == 100
    camera.advance(5)
    camera.seen.acquire()  # the fifth is kept by now
    newest = next(frames)
    assert newest.number == 105
    assert newest.picture[0, 0, 0] == 5
    assert source.dropped == 4
    assert abs(newest.time_s - time.time()) < 60
    camera.seen.release()
    camera.advance(3)
    camera.advance(1)  # there is no tenth
    assert [frame.number for frame in frames] == [108]
    source.close()


def test_a_stream_over_http_is_live() -> None:
    jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()

    class Stream(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for _ in range(30):
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stream) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        source = open_source(f"http://127.0.0.1:{web.server_port}/camera.mjpg")
        frames = list(source.read(0))
        source.close()
        web.shutdown()
        thread.join()
    assert source.live
    assert frames[0].width == 64
    assert frames[-1].number + 1 == len(frames) + source.dropped


def test_a_video_is_read_to_its_end_and_from_any_frame_on(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.avi", 20)
    source = open_source(str(path))
    assert (source.frames, source.frames_per_s, source.live) == (20, 25, False)
    frames = list(source.read(0))
    source.close()
    assert [frame.number for frame in frames] == list(range(20))
    assert [frame.time_s for frame in frames] == pytest.approx([number / 25 for number in range(20)])
    rest = list(Video(path).read(15))
    assert [frame.number for frame in rest] == list(range(15, 20))
    assert np.array_equal(rest[0].picture, frames[15].picture)
    assert list(Video(path).read(25)) == []


def test_pictures_travel_as_they_are(tmp_path: Path) -> None:
    directory = make_pictures(tmp_path, 2)
    (directory / "001.png").write_bytes(b"nonsense")
    good, bad = Pictures(directory).read(0)
    assert good.picture == (directory / "000.png").read_bytes()
    assert (good.width, good.height, good.time_s) == (60, 40, None)
    assert "001.png" in bad.error
    assert bad.width is None


def test_what_is_no_source_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    picture = make_pictures(tmp_path / "one", 1) / "000.png"
    for name, words in (
        (tmp_path / "none.mp4", "there is no "),
        (tmp_path / "empty", "there are no pictures in "),
        (tmp_path / "broken.mp4", "cannot be opened as a video"),
        (picture, "is one picture"),
        ("rtsp://127.0.0.1:9/none", "cannot be opened as a video"),
    ):
        with pytest.raises(ImageError, match=words):
            open_source(str(name))


# Tracker


def test_ids_stay_with_what_moves_and_count_from_one() -> None:
    for _ in range(2):  # also a second tracker of this process
        tracker = Tracker(30, 0.25)
        ids = [tracker.update([found(3 * frame), found(300 - 3 * frame)]) for frame in range(30)]
        assert ids == [[1, 2]] * 30


def test_low_scores_continue_a_track_and_begin_none() -> None:
    tracker = Tracker(30, 0.5)
    assert tracker.update([found(0), found(200, 0.2)]) == [1, None]
    assert tracker.update([found(2, 0.2), found(202, 0.2)]) == [1, None]
    assert tracker.update([]) == []
    assert tracker.update([found(4)]) == [1]


def test_replayed_tracks_keep_their_ids_and_new_ones_count_on() -> None:
    tracker = Tracker(30, 0.25)
    tracker.replay([([found(3 * frame), found(300)], [7, 4]) for frame in range(20)], last_id=9)
    assert tracker.update([found(300), found(60)]) == [4, 7]
    new = [tracker.update([found(300), found(60), found(600)]) for _ in range(3)]
    assert new[-1] == [4, 7, 10]


# Journal


def test_a_line_reads_back(tmp_path: Path) -> None:
    line = Line(3, 0.12, 60, 40, (found(1.5), found(9, 0.3)), (1, None))
    assert Line.decode(line.encode()) == line
    assert json.loads(line.encode()) == {
        "frame": 3,
        "time_s": 0.12,
        "width": 60,
        "height": 40,
        "objects": [
            {"track_id": 1, "name": "person", "label": 0, "score": 0.9, "box_xyxy": [1.5, 10.0, 41.5, 50.0]},
            {"track_id": None, "name": "person", "label": 0, "score": 0.3, "box_xyxy": [9.0, 10.0, 49.0, 50.0]},
        ],
        "error": None,
    }


@pytest.mark.parametrize("cut", [1, 2, 20])
def test_a_half_written_last_line_is_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "tracks.jsonl"
    whole = [Line(frame, None, 60, 40, (found(1),), (frame + 1,)) for frame in range(5)]
    path.write_bytes(b"".join(line.encode() for line in whole)[:-cut])
    done = read_done(path, 2)
    assert (done.next_frame, done.last_id, done.recent) == (4, 4, (whole[2], whole[3]))
    with Journal(path, done) as journal:
        journal.write(whole[4])
    assert path.read_bytes() == b"".join(line.encode() for line in whole)


def test_a_full_disk_is_said_and_what_is_whole_stays(tmp_path: Path) -> None:
    path = tmp_path / "tracks.jsonl"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(journal: Journal) -> None:
        for frame in range(100):
            journal.write(Line(frame, None, 60, 40, (found(1),), (1,)))

    with Journal(path, Done()) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        try:
            with pytest.raises(OSError, match=r"tracks\.jsonl"):
                fill(journal)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.stat().st_size == 1000
    done = read_done(path, 1)
    assert 0 < done.whole_bytes < 1000
    assert done.next_frame == done.recent[0].frame + 1


def test_a_file_of_something_else_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello\n")
    with pytest.raises(ContractError, match=r"line 1 of .*notes\.txt is no line of tracks"):
        read_done(path, 2)
    assert read_done(tmp_path / "none", 2) == Done()


# A server that goes away


def patient(client: DetectionClient, retry_s: float) -> tuple[PatientDetector, list[str]]:
    said: list[str] = []
    return PatientDetector(client, None, None, retry_s, said.append), said


@pytest.fixture
def hasty(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[DetectionClient]:
    """A client that tries once."""
    monkeypatch.setattr("triptych.video.detecting.PAUSE_S", 0.01)
    with DetectionClient(server.address, retries=0) as client:
        yield client


def test_a_server_that_comes_back_is_waited_for(server: FakeServer, hasty: DetectionClient) -> None:
    detect, said = patient(hasty, 30)
    server.script.extend([LOST, LOST, LOST])
    before_s = time.perf_counter()
    answer = detect(b"xy", "name-1")
    assert len(answer.found) == 2
    assert server.requests[-1].id == "name-1"
    assert answer.sent_s - before_s >= 0.03  # the time without a server is not the request's
    assert "trying again for 30 s" in said[0]
    assert "the server answers again" in said[1]
    assert len(said) == 2


def test_a_server_that_stays_away_is_given_up(server: FakeServer, hasty: DetectionClient) -> None:
    detect, said = patient(hasty, 0.05)
    server.everywhere = LOST
    with pytest.raises(ServerUnavailable):
        detect(b"xy", "")
    assert len(said) == 1
    assert len(server.requests) > 1


def test_what_no_wait_mends_is_raised_at_once(server: FakeServer, hasty: DetectionClient) -> None:
    detect, said = patient(hasty, 30)
    server.everywhere = Fault(grpc.StatusCode.INVALID_ARGUMENT, "no")
    with pytest.raises(InvalidRequest):
        detect(b"xy", "")
    assert said == []
    assert len(server.requests) == 1


def test_an_image_that_the_server_cannot_read_is_an_answer(hasty: DetectionClient) -> None:
    answer = patient(hasty, 0)[0](b"bad", "")
    assert answer.found is None
    assert answer.error == "cannot be read: é"


# Times


def test_the_times_of_a_frame_add_up_and_name_who_took_them(tmp_path: Path) -> None:
    class SlowTracker(Tracker):
        def update(self, objects: object) -> list[int | None]:
            time.sleep(0.03)
            return []

    def detect(_encoded: bytes, _request_id: str) -> Answer:
        sent_s = time.perf_counter()
        time.sleep(0.02)
        return Answer(Detections.failed(""), "", sent_s, time.perf_counter())

    source = Pictures(make_pictures(tmp_path, 8))
    totals, began_s = Totals(), time.perf_counter()
    for tracked in pipeline.run(
        source,
        0,
        detect,
        SlowTracker(30, 0.25),
        lambda _line: time.sleep(0.01),
        score_threshold=0.25,
        in_flight=2,
        quality=90,
        prefix="p-",
    ):
        assert list(tracked.times.ms) == list(STAGES)
        assert min(tracked.times.ms.values()) >= 0
        assert tracked.times.ms["track"] >= 30
        assert tracked.times.ms["predict"] >= 20
        assert tracked.times.ms["write"] >= 10
        assert tracked.times.ms["encode"] == 0
        assert tracked.request_id == f"p-{tracked.line.frame}"
        totals.add(tracked.times)
    took_s = time.perf_counter() - began_s
    assert totals.frames == 8
    assert 8 * 0.04 <= totals.seconds <= took_s
    assert sum(totals.ms.values()) / 1000 <= 4 * took_s  # two with the server, one made ahead, one being tracked


def test_the_busiest_bounds_the_throughput() -> None:
    means_ms = {"read": 2.0, "encode": 3.0, "wait": 50.0, "predict": 60.0, "track": 5.0, "write": 1.0}
    shares = busy_shares(means_ms, 30, in_flight=2)
    assert shares == pytest.approx({"read": 0.06, "encode": 0.09, "predict": 0.9, "track": 0.15, "write": 0.03})
    assert bound_sentence(shares, 30, live=False).startswith("predict bounds the throughput of 30.0 frames/s: busy 90%")
    shares = busy_shares({**means_ms, "predict": 20.0, "track": 30.0}, 30, in_flight=2)
    assert bound_sentence(shares, 30, live=False).startswith("track and write bounds")
    shares = busy_shares({**means_ms, "predict": 20.0}, 30, in_flight=2)
    assert bound_sentence(shares, 30, live=True).startswith("the source bounds")
    assert bound_sentence(shares, 30, live=False).startswith("nobody is busy all the time")


def test_counters_of_a_server_that_was_restarted_count_from_zero() -> None:
    before = {"detector": Counters(requests=90), "preprocess": Counters(requests=5), "gone": Counters(requests=3)}
    after = {"detector": Counters(requests=40), "preprocess": Counters(requests=6)}
    assert since_restart(before, after) == {"preprocess": Counters(requests=5)}


# The command


def test_a_directory_to_its_end(run: Run, server: FakeServer, tmp_path: Path) -> None:
    directory = make_pictures(tmp_path / "pictures", 6)
    (directory / "003.png").write_bytes(b"nonsense")
    out = tmp_path / "tracks.jsonl"
    result = run(directory, "--out", out)
    assert result.exit_code == 1, result.output
    written = lines(out)
    assert [line["frame"] for line in written] == list(range(6))
    assert [bool(line["error"]) for line in written] == [number == 3 for number in range(6)]
    assert "003.png" in written[3]["error"]
    assert written[5]["objects"][0]["track_id"] == written[0]["objects"][0]["track_id"] == 1
    # Two are in flight, and may overtake each other on the way.
    assert sorted(sent for [sent] in server.batches) == sorted(
        path.read_bytes() for path in directory.iterdir() if path.name != "003.png"
    )
    assert result.stdout.startswith("6 frames in ")
    assert ", 1 failed" in result.stdout
    assert "owns" in result.stdout
    assert "frames/s: " in result.stdout


def test_a_video_is_sent_as_jpeg(run: Run, server: FakeServer, tmp_path: Path) -> None:
    out = tmp_path / "tracks.jsonl"
    result = run(make_video(tmp_path / "a.avi", 5), "--out", out, "--frames", 3, "--quality", 50)
    assert result.exit_code == 0, result.output
    assert [(line["time_s"], line["width"]) for line in lines(out)] == [(0.0, 64), (0.04, 64), (0.08, 64)]
    assert all(sent[:3] == b"\xff\xd8\xff" for [sent] in server.batches)


def test_a_file_that_holds_something_is_not_touched_unasked(run: Run, tmp_path: Path) -> None:
    directory, out = make_pictures(tmp_path / "pictures", 3), tmp_path / "tracks.jsonl"
    out.write_bytes(Line(0, None, 60, 40).encode())
    before = out.read_bytes()
    for arguments, words in (((), "--resume.*--overwrite"), (("--resume", "--overwrite"), "give one of them")):
        with pytest.raises(ContractError, match=words):
            raise run(directory, "--out", out, *arguments).exception
    assert out.read_bytes() == before
    assert run(directory, "--out", out, "--resume").exit_code == 0
    assert out.read_bytes().startswith(before)
    assert [line["frame"] for line in lines(out)] == [0, 1, 2]
    assert run(directory, "--out", out, "--resume").exit_code == 0  # nothing is left to do
    assert run(directory, "--out", out, "--overwrite").exit_code == 0
    assert [bool(line["objects"]) for line in lines(out)] == [True] * 3


def test_a_server_lost_for_good_leaves_all_before_it_and_resume_goes_on(
    run: Run, server: FakeServer, tmp_path: Path, quick: None
) -> None:
    directory, out = make_pictures(tmp_path / "pictures", 20), tmp_path / "tracks.jsonl"
    server.script.extend([lambda _response: None] * 9 + [LOST] * 1000)
    result = run(directory, "--out", out, "--retry-s", 0)
    assert isinstance(result.exception, TriptychError)
    assert f"{out} has every frame before that: go on with --resume" in str(result.exception)
    assert [line["frame"] for line in lines(out)] == list(range(9))
    server.script.clear()
    assert run(directory, "--out", out, "--resume").exit_code == 0
    written = lines(out)
    assert [line["frame"] for line in written] == list(range(20))
    assert len({line["objects"][0]["track_id"] for line in written}) == 1


def test_a_video_that_ends_early_is_said_to(run: Run, tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.avi", 60)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    result = run(path, "--out", tmp_path / "tracks.jsonl")
    assert "60 frames were expected, but the source ended after" in result.stdout


def test_without_supervision_the_extra_is_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    result = run(make_pictures(tmp_path / "pictures", 1), "--out", tmp_path / "tracks.jsonl")
    assert "pip install 'triptych[track]'" in str(result.exception)
