"""One shard against servers that refuse, restart, or die of an image."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

pytest.importorskip("pyarrow", reason="needs the packages of the extra `bulk`")

import pyarrow.parquet as pq

from support.fake_server import QUEUE_FULL, UNHEALTHY, FakeServer, Fault
from triptych.bulk import job, shard
from triptych.bulk.places import Place
from triptych.bulk.shard import Done, Settings, do_shard
from triptych.errors import AccessDenied, ServerOverloaded, ServerUnavailable
from triptych.wire.credentials import LOCAL
from triptych.wire.protocol import decode_bytes

NAMES = ("person", "bicycle", "car")


@pytest.fixture(autouse=True)
def _quick(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(shard, "MAX_PAUSE_S", 0.02)


class Bulk:
    """Ten files of one to ten bytes: the fake server finds an object for each byte."""

    def __init__(self, folder: Path) -> None:
        self.images = folder / "images"
        self.images.mkdir()
        for number in range(10):
            (self.images / f"{number}.jpg").write_bytes(b"x" * (number + 1))
        self.out = Place.of(str(folder / "out"))

    def run(self, server: FakeServer, **other: Any) -> Done:
        settings = {"timeout_s": 5.0, "retry_s": 60.0, "batch": 4, "in_flight": 2, **other}
        begun = job.begin(
            self.out,
            Place.of(str(self.images)),
            resume=True,
            shard_images=100,
            score_threshold=0.3,
            iou_threshold=None,
        )
        chosen = Settings(str(self.images), self.out.text, server.address, LOCAL, **settings)
        return do_shard(begun, chosen, 0)

    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(self.out.path(job.part_name(0))).to_pylist()
        return rows

    def objects(self) -> list[int | None]:
        return [None if row["objects"] is None else len(row["objects"]) for row in self.rows()]


@pytest.fixture
def bulk(tmp_path: Path) -> Bulk:
    return Bulk(tmp_path)


class Deadly(FakeServer):
    """A server whose process dies of some images, and refuses others."""

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        images = decode_bytes(request.raw_input_contents[0])
        if b"deadly" in images:
            context.abort(UNHEALTHY.code, UNHEALTHY.details)
        if b"refused" in images:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not this one")
        return super().ModelInfer(request, context)


@pytest.fixture
def deadly() -> Iterator[Deadly]:
    fake = Deadly()
    fake.start()
    yield fake
    fake.stop()


def test_every_image_has_its_row_in_order(bulk: Bulk, server: FakeServer) -> None:
    server.version = 7
    done = bulk.run(server)
    assert done == Done(0, 10, 0, 0, {"person": 22, "bicycle": 18, "car": 15})
    rows = bulk.rows()
    assert [row["path"] for row in rows] == [str(bulk.images / f"{number}.jpg") for number in range(10)]
    assert bulk.objects() == list(range(1, 11))
    assert {row["model_version"] for row in rows} == {"7"}
    assert all(request.parameters["score_threshold"].double_param == 0.3 for request in server.requests)
    assert max(map(len, server.batches)) == 4


def test_a_bad_image_is_a_row_with_its_reason(bulk: Bulk, server: FakeServer) -> None:
    (bulk.images / "3.jpg").write_bytes(b"bad")
    (bulk.images / "5.jpg").write_bytes(b"")
    (bulk.images / "7.jpg").unlink()
    (bulk.images / "7.jpg").symlink_to("nowhere")
    assert bulk.run(server).failed == 3
    reasons = {Path(row["path"]).stem: row["error"] for row in bulk.rows() if row["error"]}
    assert list(reasons) == ["3", "5", "7"]
    assert reasons["3"] == "cannot be read: é"
    assert "empty" in reasons["5"]
    assert "there is no file" in reasons["7"]


def test_nothing_is_lost_to_a_server_that_refuses(bulk: Bulk, server: FakeServer) -> None:
    server.script.extend([QUEUE_FULL] * 25)
    assert bulk.run(server).failed == 0
    assert bulk.objects() == list(range(1, 11))


def test_a_server_that_is_gone_for_a_while_is_waited_for(bulk: Bulk, server: FakeServer) -> None:
    server.stop()
    back = threading.Timer(1.0, server.start)
    back.start()
    try:
        bulk.run(server)
    finally:
        back.join()
    assert bulk.objects() == list(range(1, 11))


@pytest.mark.parametrize(
    ("fault", "error"),
    [(QUEUE_FULL, ServerOverloaded), (Fault(grpc.StatusCode.UNAVAILABLE, "Socket closed"), ServerUnavailable)],
)
def test_a_server_that_never_answers_ends_the_shard(
    bulk: Bulk, server: FakeServer, fault: Fault, error: type[Exception]
) -> None:
    server.everywhere = fault
    with pytest.raises(error):
        bulk.run(server, retry_s=0.2)
    assert bulk.out.names() == {"_job"}


def test_no_time_is_lost_on_a_server_that_denies_access(bulk: Bulk, server: FakeServer) -> None:
    server.everywhere = Fault(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
    started = time.monotonic()
    with pytest.raises(AccessDenied):
        bulk.run(server)
    assert time.monotonic() - started < 30


def test_images_that_a_server_dies_of_or_refuses_cost_themselves_alone(bulk: Bulk, deadly: Deadly) -> None:
    (bulk.images / "2.jpg").write_bytes(b"deadly")
    (bulk.images / "6.jpg").write_bytes(b"refused")
    assert bulk.run(deadly).failed == 2
    assert bulk.objects() == [1, 2, None, 4, 5, 6, None, 8, 9, 10]
    errors = [row["error"] or "" for row in bulk.rows()]
    assert "process died" in errors[2]
    assert "not this one" in errors[6]


def test_an_image_that_was_there_when_another_ended_the_process_is_fine(bulk: Bulk, server: FakeServer) -> None:
    server.script.extend([UNHEALTHY] * 12)
    assert bulk.run(server, batch=1).failed == 0
    assert bulk.objects() == list(range(1, 11))


def test_a_request_that_is_too_slow_is_halved(bulk: Bulk, server: FakeServer) -> None:
    late = Fault(grpc.StatusCode.DEADLINE_EXCEEDED)
    server.script.extend([late] * 4)
    bulk.run(server)
    assert bulk.objects() == list(range(1, 11))
    assert min(map(len, server.batches)) == 1


def test_which_version_answered_is_not_known_where_it_changed(bulk: Bulk, server: FakeServer) -> None:
    def publish(_response: Any) -> None:
        server.version = 2

    server.script.append(publish)
    bulk.run(server)
    assert {row["model_version"] for row in bulk.rows()} == {None}
