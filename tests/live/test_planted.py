"""Delays planted where we know them, and whom the load test finds."""

from __future__ import annotations

import queue
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import ROOT
from support.steady import measured_in_peace
from triptych import DetectionClient
from triptych.contract import DETECTION
from triptych.measure import run_file
from triptych.measure.run_file import Run
from triptych.serving.server import Ports, TritonServer

pytestmark = [pytest.mark.triton, pytest.mark.slow]

LATE = """

import time

_on_time = TritonPythonModel.respond
_requests = 0


def _late(self, request):
    global _requests
    _requests += 1
    every, seconds = (Path(__file__).parent / "late").read_text().split()
    due = time.perf_counter() + float(seconds) * (_requests % int(every) == 0)
    time.sleep(max(0.0, due - time.perf_counter() - 0.001))
    while time.perf_counter() < due:
        pass  # a sleep alone ends late by what the scheduler likes
    return _on_time(self, request)


TritonPythonModel.respond = _late
"""

STEADY = """

import time

import numpy as np

_detect = TritonPythonModel.respond


def _steady(self, request):
    here = Path(__file__).parent
    while (here / "stalled").exists():
        time.sleep(0.01)
    if not (here / "steady").exists():
        return _detect(self, request)
    images = pb_utils.get_input_tensor_by_name(request, "pixels").as_numpy().shape[0]
    time.sleep(0.025)
    return pb_utils.InferenceResponse([pb_utils.Tensor("candidates", np.zeros((images, 300, 6), np.float32))])


TritonPythonModel.respond = _steady
"""


@dataclass
class Planted:
    """A server that is late in postprocess, and takes 25 ms sharp or stalls in the detector, when it is told to."""

    server: TritonServer
    repository: Path

    def be_late(self, milliseconds: float, every: int = 1) -> None:
        (self.repository / "postprocess" / "1" / "late").write_text(f"{every} {milliseconds / 1000}")

    def be_steady(self, steady: bool) -> None:
        file = self.repository / "detector" / "1" / "steady"
        if steady:
            file.touch()
        else:
            file.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def module_planted(make_repository) -> Iterator[Planted]:
    repository = make_repository(ROOT / "demo" / "pcb.onnx")
    for model, addition in (("postprocess", LATE), ("detector", STEADY)):
        file = repository / model / "1" / "model.py"
        file.write_text(file.read_text() + addition)
    (repository / "postprocess" / "1" / "late").write_text("1 0")
    with TritonServer(repository, ports=Ports.free(), log_path=repository.parent / "log") as server:
        yield Planted(server, repository)


@pytest.fixture
def planted(module_planted: Planted) -> Planted:
    module_planted.be_late(0)
    module_planted.be_steady(False)
    return module_planted


@pytest.fixture
def measure(planted, images, loadtest, tmp_path):
    def run(*arguments: object, address: str = "", users: int = 1, duration: float = 3) -> Run:
        done = loadtest(
            *("--address", address or planted.server.grpc_address, "--images", images, "--users", users),
            *("--warmup", 0.5, "--duration", duration, "--out", tmp_path / "run.json", *arguments),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return run_file.read(tmp_path / "run.json")

    return run


def test_a_delay_in_postprocess_is_postprocess_s_at_every_percentile(planted, measure):
    def check() -> None:
        planted.be_late(0)
        without = measure(duration=4).attribution.breakdowns["p50"].owners()
        planted.be_late(20)
        found = measure(duration=12).attribution.breakdowns
        for at in ("p50", "p95", "p99"):
            assert found[at].owners()["postprocess"] - without["postprocess"] == pytest.approx(20, abs=1), at
        for owner, milliseconds in found["p50"].owners().items():
            if owner not in ("postprocess", "detector"):  # the detector's own time varies by more, from run to run
                assert milliseconds == pytest.approx(without[owner], abs=1), owner

    measured_in_peace(check)


def test_a_delay_now_and_then_is_a_long_tail_of_its_stage_alone(planted, measure):
    planted.be_steady(True)
    planted.be_late(40, every=50)

    def check() -> None:
        found = measure(duration=10).attribution
        assert found.requests >= 200
        tails = [each for each in found.long_tails if each.startswith("postprocess has a long tail")]
        assert len(tails) == 1, found.long_tails
        assert "mostly in the model" in tails[0]
        assert found.percentiles_ms["postprocess"]["p95"] < 20
        assert found.percentiles_ms["postprocess"]["p99"] > 40
        for other in ("preprocess", "ensemble overhead", "network and client"):
            assert found.percentiles_ms[other]["p99"] < 40, other
        assert found.breakdowns["p99"].owners()["postprocess"] > found.breakdowns["p50"].owners()["postprocess"] + 35

    measured_in_peace(check)


@contextmanager
def delayed_proxy(port: int, seconds: float) -> Iterator[str]:
    """The address of one that passes all on to a port of this machine, and holds up what comes back for so long."""
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
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # wakes who waits for it
            each.close()


def test_a_delay_on_the_way_is_the_network_s(planted, measure):
    planted.be_steady(True)

    def check() -> None:
        without = measure(duration=2).attribution.breakdowns["p50"].owners()
        with delayed_proxy(planted.server.ports.grpc, 0.03) as address:
            found = measure(address=address, duration=2).attribution.breakdowns["p50"].owners()
        for owner, milliseconds in found.items():
            late = 30 if owner == "network and client" else 0
            assert milliseconds - without[owner] == pytest.approx(late, abs=4), owner

    measured_in_peace(check)


@contextmanager
def stalled(planted: Planted, process: subprocess.Popen[str], seconds: float) -> Iterator[None]:
    """Have the detector stand still for a while, amid the measurement of `process`.

    In the model and not with SIGSTOP, which Triton 2.51 does not survive if a lock is held at that moment.
    """
    with DetectionClient(planted.server.grpc_address) as client:
        before = client.statistics()[DETECTION.name].requests
        while client.statistics()[DETECTION.name].requests == before:  # the warm-up has not begun
            assert process.poll() is None
            time.sleep(0.02)
    time.sleep(3)
    file = planted.repository / "detector" / "1" / "stalled"
    file.touch()
    time.sleep(seconds)
    file.unlink()
    yield


def test_an_open_loop_sees_a_stall_that_a_closed_one_hides(planted, images, start, tmp_path):
    planted.be_steady(True)
    runs = {}
    for name, load in (("closed", ("--users", 1)), ("open", ("--rate", 15))):
        out = tmp_path / f"{name}.json"
        with (
            start(
                *("--address", planted.server.grpc_address, "--images", images, *load),
                *("--warmup", 0.5, "--duration", 10, "--out", out),
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
