"""Delays planted where we know them, and whom the load test blames."""

from __future__ import annotations

import queue
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from support.steady import Planted, measured_in_peace
from support.types import Loadtest, Start
from triptych import DetectionClient
from triptych.contract import DETECTION
from triptych.measure import remarks, run_file
from triptych.measure.run_file import Run
from triptych.wire.access import read_key, remove_key, write_key

pytestmark = pytest.mark.triton

Measure = Callable[..., Run]


@pytest.fixture
def measure(planted: Planted, images: Path, loadtest: Loadtest, tmp_path: Path) -> Measure:
    def run(address: str = "", duration_s: float = 3) -> Run:
        done = loadtest(
            *("--address", address or planted.server.grpc_address, "--images", images, "--users", 1),
            *("--warmup-s", 0.5, "--duration-s", duration_s, "--out", tmp_path / "run.json"),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return run_file.read(tmp_path / "run.json")

    return run


def test_the_stage_that_is_late_is_blamed(planted: Planted, measure: Measure) -> None:
    """Whatever else the machine does: the delay is longer than all that takes the rest."""
    planted.be_late(1000)
    breakdowns = measure(duration_s=2.5).attribution.breakdowns
    for at in ("mean", "p50", "p99"):
        owners = breakdowns[at].owners()
        assert max(owners, key=lambda name: owners[name]) == "postprocess", at


@pytest.mark.timing
@pytest.mark.slow
def test_a_delay_in_postprocess_is_postprocess_s_at_every_percentile(planted: Planted, measure: Measure) -> None:
    planted.be_steady(False)

    def check() -> None:
        planted.be_late(0)
        without = measure(duration_s=4).attribution.breakdowns["p50"].owners()
        planted.be_late(20)
        breakdowns = measure(duration_s=12).attribution.breakdowns
        for at in ("p50", "p95", "p99"):
            assert breakdowns[at].owners()["postprocess"] - without["postprocess"] == pytest.approx(20, abs=1), at
        for owner, milliseconds in breakdowns["p50"].owners().items():
            if owner not in ("postprocess", "detector"):  # the detector's own time varies by more, from run to run
                assert milliseconds == pytest.approx(without[owner], abs=1), owner

    measured_in_peace(check)


@pytest.mark.timing
@pytest.mark.slow
def test_a_delay_now_and_then_is_a_long_tail_of_its_stage_alone(planted: Planted, measure: Measure) -> None:
    planted.be_late(40, every=50)

    def check() -> None:
        run = measure(duration_s=10)
        attribution = run.attribution
        assert attribution.requests >= 200
        tails = [remark.text for remark in remarks.of_run(run) if remark.id == "long-tail"]
        (postprocess,) = (tail for tail in tails if tail.startswith("postprocess has a long tail"))
        assert "mostly in the model" in postprocess
        assert attribution.percentiles_ms["postprocess"]["p95"] < 20
        assert attribution.percentiles_ms["postprocess"]["p99"] > 40
        for other in ("preprocess", "ensemble overhead", "network and client"):
            assert attribution.percentiles_ms[other]["p99"] < 40, other
        assert (
            attribution.breakdowns["p99"].owners()["postprocess"]
            > attribution.breakdowns["p50"].owners()["postprocess"] + 35
        )

    measured_in_peace(check)


@contextmanager
def delayed_proxy(port: int, seconds: float) -> Iterator[str]:
    """Give the address of a proxy for a port of this machine, which holds up the answers for so long."""
    listening = socket.create_server(("127.0.0.1", 0))
    sockets = [listening]

    def forward(source: socket.socket, target: socket.socket, hold_s: float) -> None:
        waiting: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

        def send() -> None:
            while True:
                due, data = waiting.get()
                time.sleep(max(0.0, due - time.monotonic()))
                try:
                    target.sendall(data) if data else target.shutdown(socket.SHUT_WR)
                except OSError:
                    return
                if not data:
                    return

        threading.Thread(target=send, daemon=True).start()
        data = b"-"
        while data:
            try:
                data = source.recv(1 << 20)
            except OSError:
                data = b""
            waiting.put((time.monotonic() + hold_s, data))

    def accept() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", port))
            sockets.extend((client, server))
            for side in (client, server):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=forward, args=(client, server, 0.0), daemon=True).start()
            threading.Thread(target=forward, args=(server, client, seconds), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    address = f"127.0.0.1:{listening.getsockname()[1]}"
    # Commands look for the key of the port that they are given, and traces need it.
    key = read_key(f"127.0.0.1:{port}")
    key_file = write_key(listening.getsockname()[1], key)
    try:
        yield address
    finally:
        remove_key(key_file, key)
        for one in sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)  # wakes who waits for it
            one.close()


@pytest.mark.timing
@pytest.mark.slow
def test_a_delay_on_the_way_is_the_network_s(planted: Planted, measure: Measure) -> None:

    def check() -> None:
        without = measure(duration_s=2).attribution.breakdowns["p50"].owners()
        with delayed_proxy(planted.server.ports.grpc, 0.03) as address:
            delayed = measure(address=address, duration_s=2).attribution.breakdowns["p50"].owners()
        for owner, milliseconds in delayed.items():
            late = 30 if owner == "network and client" else 0
            assert milliseconds - without[owner] == pytest.approx(late, abs=4), owner

    measured_in_peace(check)


@contextmanager
def stalled(planted: Planted, process: subprocess.Popen[str], seconds: float) -> Iterator[None]:
    """Have the detector stand still for a while, amid the measurement of `process`."""
    with DetectionClient(planted.server.grpc_address) as client:
        before = client.statistics()[DETECTION.name].requests
        while client.statistics()[DETECTION.name].requests == before:  # the warm-up has not begun
            assert process.poll() is None
            time.sleep(0.02)
    time.sleep(3)
    planted.stall(True)
    time.sleep(seconds)
    planted.stall(False)
    yield


@pytest.mark.timing
@pytest.mark.slow
def test_an_open_loop_sees_a_stall_that_a_closed_one_hides(
    planted: Planted, images: Path, start: Start, tmp_path: Path
) -> None:
    runs = {}
    for name, load in (("closed", ("--users", 1)), ("open", ("--rate", 15))):
        out = tmp_path / f"{name}.json"
        with (
            start(
                *("--address", planted.server.grpc_address, "--images", images, *load),
                *("--warmup-s", 0.5, "--duration-s", 10, "--out", out),
            ) as process,
            stalled(planted, process, 2),
        ):
            stdout, stderr = process.communicate()
        assert process.returncode == 0, stdout + stderr
        runs[name] = run_file.read(out)
    closed, open_ = (runs[name].client.latencies for name in ("closed", "open"))
    assert closed.percentile_ms(100) > 1900, "the stall was there"
    assert closed.percentile_ms(99) < 300, "and the closed loop's p99 knows nothing of it"
    assert open_.percentile_ms(99) > 1000
    assert open_.count == pytest.approx(150, abs=2), "15 a second for 10 s, whatever the answers did"
    assert runs["open"].attribution.breakdowns["p99"].owners()["detector"] > 1000
