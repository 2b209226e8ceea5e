"""Images through shared memory: who reads what when, and what is left afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from support.fake_server import ELSEWHERE, FORGOTTEN, LOST, QUEUE_FULL, RESTRICTED, FakeServer, Fault
from triptych.client import AsyncDetectionClient, DetectionClient
from triptych.errors import (
    AccessDenied,
    ContractError,
    DeadlineExceeded,
    InvalidRequest,
    ServerOverloaded,
    ServerUnavailable,
    TriptychError,
)
from triptych.vision.decode import decode
from triptych.wire import shared_memory
from triptych.wire.access import GRPC_HEADER
from triptych.wire.credentials import Credentials
from triptych.wire.shared_memory import REGION_BYTES, SHARED_MEMORY, SMALLEST_BYTES, Region

LARGE, LARGER = b"a" * SMALLEST_BYTES, b"b" * (3 * REGION_BYTES)

pytestmark = pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="needs /dev/shm")


def left(server: FakeServer) -> list[Path]:
    """The files of clients of this server."""
    return [path for path in SHARED_MEMORY.iterdir() if shared_memory._prefix(server.address) in path.name]


def region_of(request: Any) -> str:
    name: str = request.inputs[0].parameters["shared_memory_region"].string_param
    return name


@pytest.fixture
def client(server: FakeServer) -> Iterator[DetectionClient]:
    """A client with shared memory, of which nothing may be left."""
    with DetectionClient(server.address, shared_memory=True) as opened:
        yield opened
    assert (server.regions, left(server)) == ({}, [])


def detect(server: FakeServer, image: Any) -> None:
    with DetectionClient(server.address, shared_memory=True) as client:
        client.detect(image)


def detect_async(server: FakeServer, image: Any) -> None:
    async def run() -> None:
        async with AsyncDetectionClient(server.address, shared_memory=True) as client:
            await client.detect(image)

    asyncio.run(run())


calls = pytest.mark.parametrize("call", [detect, detect_async], ids=["sync", "async"])


@calls
def test_a_large_image_is_not_in_the_request(server: FakeServer, call: Callable[..., None]) -> None:
    call(server, LARGE)
    assert server.batches == [[LARGE]]
    assert region_of(server.requests[0])
    assert (server.regions, left(server)) == ({}, [])


def test_a_batch(server: FakeServer, client: DetectionClient) -> None:
    images = [LARGE, b"bad", b"c"]
    assert [len(result) for result in client.detect_batch(images)] == [300, 0, 1]
    assert server.batches == [images]
    assert region_of(server.requests[0])


def test_a_small_one_goes_by_grpc(server: FakeServer, client: DetectionClient) -> None:
    client.detect(LARGE[1:])
    assert server.batches == [[LARGE[1:]]]
    assert not region_of(server.requests[0])


def test_an_array_is_not_compressed(server: FakeServer, client: DetectionClient) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (600, 700, 3), np.uint8)
    client.detect(pixels)
    [[sent]] = server.batches
    assert sent.startswith(b"P6\n")
    assert np.array_equal(decode(sent), pixels)


def test_a_region_is_used_again_and_a_larger_one_takes_its_place(server: FakeServer, client: DetectionClient) -> None:
    for image in (LARGE, LARGE, LARGER, LARGE):
        client.detect(image)
    first, second, third, fourth = map(region_of, server.requests)
    assert first == second != third == fourth
    assert server.regions == {third: 4 * REGION_BYTES}
    assert [path.name for path in left(server)] == [third]


def test_requests_at_the_same_time_have_regions_of_their_own(server: FakeServer, client: DetectionClient) -> None:
    server.delay_s = 0.3
    threads = [threading.Thread(target=client.detect, args=(image * SMALLEST_BYTES,)) for image in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(region_of, server.requests))) == 3
    assert sorted(image[:1] for [image] in server.batches) == [b"a", b"b", b"c"]


def test_a_region_that_the_server_may_still_read_is_left_alone(server: FakeServer, client: DetectionClient) -> None:
    client.class_names()
    server.delay_s = 30
    with pytest.raises(DeadlineExceeded):
        client.detect(LARGE, timeout_s=0.5)
    [read] = server.in_use = {region_of(server.requests[0])}
    server.delay_s = 0
    client.detect(LARGER)
    assert region_of(server.requests[1]) != read
    assert (SHARED_MEMORY / read).read_bytes()[4 : 4 + len(LARGE)] == LARGE
    server.in_use.clear()
    client.detect(LARGER * 2)  # needs a new region, before which the server is asked again
    assert read not in server.regions
    assert not (SHARED_MEMORY / read).exists()


def test_a_task_that_is_cancelled_leaves_its_region_alone(server: FakeServer) -> None:
    async def run() -> None:
        async with AsyncDetectionClient(server.address, shared_memory=True) as client:
            await client.class_names()
            server.delay_s = 30
            task = asyncio.create_task(client.detect(LARGE))
            await asyncio.to_thread(server.entered.wait)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            server.delay_s = 0
            await client.detect(LARGE)
            first, second = map(region_of, server.requests)
            assert first != second

    asyncio.run(run())
    assert (server.regions, left(server)) == ({}, [])


def test_a_refused_request_is_the_servers_word(server: FakeServer, client: DetectionClient) -> None:
    server.script.append(QUEUE_FULL)
    with pytest.raises(ServerOverloaded):
        client.detect(LARGE)
    client.detect(LARGE)
    first, second = map(region_of, server.requests)
    assert first == second


@pytest.mark.usefixtures("quick")
def test_after_a_lost_connection_the_images_go_in_another_region(server: FakeServer, client: DetectionClient) -> None:
    server.script.append(LOST)
    client.detect(LARGE)
    first, second = map(region_of, server.requests)
    assert first != second
    assert server.batches == [[LARGE]] * 2
    assert list(server.regions) == [second]


def test_a_server_that_was_started_again(server: FakeServer, client: DetectionClient) -> None:
    client.detect(LARGE)
    server.regions.clear()
    client.detect(LARGE)
    first, second = map(region_of, server.requests)
    assert first == second
    assert server.batches == [[LARGE]] * 2


@pytest.mark.usefixtures("quick")
def test_a_server_that_forgets_every_time(server: FakeServer, client: DetectionClient) -> None:
    server.script.extend([FORGOTTEN] * 6)  # three tries, each with a registration in between
    with pytest.raises(ServerUnavailable, match="started again in the middle"):
        client.detect(LARGE)


def test_the_key_goes_with_the_registration(server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret")
    credentials = Credentials(server_key=tmp_path / "key")
    with DetectionClient(server.address, shared_memory=True, credentials=credentials) as client:
        client.detect(LARGE)
    registered, inferred = server.metadata
    assert registered[GRPC_HEADER] == "secret"
    assert GRPC_HEADER not in inferred


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [(RESTRICTED, AccessDenied, "its key"), (ELSEWHERE, InvalidRequest, "another machine, .* go without")],
)
def test_a_server_that_does_not_register(
    server: FakeServer, client: DetectionClient, fault: Fault, error: type[TriptychError], words: str
) -> None:
    for _ in range(2):
        server.registrations.append(fault)
        with pytest.raises(error, match=words):
            client.detect(LARGE)
        assert left(server) == []


def test_shared_memory_that_is_full(
    server: FakeServer, client: DetectionClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.posix_fallocate", fail)
        with pytest.raises(TriptychError, match=r"/dev/shm has \d+ MB left, and a request needs 1 MB more; enlarge it"):
            client.detect(LARGE)
    client.detect(LARGE)


def test_no_place_for_a_region(client: DetectionClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "SHARED_MEMORY", Path("/proc"))
    with pytest.raises(TriptychError, match=r"no region of shared memory can be made in /proc: .*; go without it"):
        client.detect(LARGE)


def test_only_with_one_server_and_on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ContractError, match="is with one server, but got several addresses"):
        DetectionClient("a:1,b:1", shared_memory=True)
    monkeypatch.setattr(shared_memory, "SHARED_MEMORY", Path("/nowhere"))
    with pytest.raises(ContractError, match="needs /nowhere, which this system does not have"):
        DetectionClient("a:1", shared_memory=True)


def test_what_a_killed_client_left_goes_with_the_next_one(server: FakeServer) -> None:
    program = (
        "import sys; from triptych.wire.shared_memory import Region\n"
        "region = Region(sys.argv[1], 100); print(region.name, flush=True); sys.stdin.read()"
    )
    arguments = [sys.executable, "-c", program, server.address]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        name = process.stdout.readline().strip()
        server.regions[name] = 100
        detect(server, LARGE)
        assert name in server.regions  # it lives
        process.kill()
    detect(server, LARGE)
    assert (server.regions, left(server)) == ({}, [])


FORK = """
import os, sys
from triptych.wire.credentials import LOCAL
from triptych.wire.effects import Call
from triptych.wire.protocol import describe_request
from triptych.wire.shared_memory import SharedMemory

memory = SharedMemory(sys.argv[1], LOCAL)
ask = lambda: memory.ask(Call("ModelInfer", describe_request("detection", 1), 1.0), [b"image"], lambda: 1.0)

flow = ask()
parents = next(flow).request.name
flow.send(None)  # it is registered
try:
    flow.send("answer")
except StopIteration:
    pass
if not os.fork():
    assert next(ask()).request.name != parents  # registers one of its own
    os._exit(0)
assert os.wait()[1] == 0
assert next(ask()).request.inputs[0].parameters["shared_memory_region"].string_param == parents
assert os.path.exists(f"/dev/shm/{parents}")
"""


def test_a_forked_process_leaves_its_parents_regions_alone(server: FakeServer) -> None:
    subprocess.run([sys.executable, "-c", FORK, server.address], check=True)
    detect(server, LARGE)
    assert left(server) == []


def test_a_region_has_its_memory_before_it_is_written_to(server: FakeServer) -> None:
    region = Region(server.address, REGION_BYTES)
    assert region.path.stat().st_blocks * 512 >= REGION_BYTES
    assert region.path.stat().st_mode & 0o777 == 0o600
    region.remove()
    region.let_go()


def test_close_while_a_request_is_under_way(server: FakeServer) -> None:
    client = DetectionClient(server.address, shared_memory=True)
    client.class_names()
    server.delay_s = 30
    errors: list[Exception] = []

    def run() -> None:
        try:
            client.detect(LARGE)
        except TriptychError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    server.entered.wait()
    server.in_use = set(server.regions)
    client.close()
    thread.join()
    assert len(errors) == 1
    assert len(left(server)) == 1
    server.in_use, server.delay_s = set(), 0
    detect(server, LARGE)
    assert (server.regions, left(server)) == ({}, [])
