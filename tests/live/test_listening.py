"""The embedded server on a network: its addresses, TLS, its key, its log, and how it ends, with the real Triton."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import grpc
import psutil
import pytest

from live.test_server import Caller, Serving, leftovers, wait_for, write_repository
from support.certificates import Authority
from triptych.serving import Ports, TritonServer
from triptych.serving.processes import marked_processes
from triptych.serving.supervisor import Supervisor
from triptych.serving.tls import ServerTls
from triptych.wire import access
from triptych.wire.credentials import Credentials
from triptych.wire.model_control import ModelControl

pytestmark = pytest.mark.triton

KEY = "a+key/of==24-characters_"


def reaches(address: str, credentials: Credentials) -> str:
    """Return "yes" if a server answers, or the words of gRPC."""
    with contextlib.closing(ModelControl(address, credentials=credentials)) as control:
        try:
            control.ask_live(3).result()
        except grpc.RpcError as error:
            return str(error.details())
        return "yes"


def own_addresses() -> list[str]:
    """Return the IPv4 addresses of this machine that other machines may reach."""
    addresses = [address.address for interface in psutil.net_if_addrs().values() for address in interface]
    return [address for address in addresses if re.fullmatch(r"[\d.]+", address) and not address.startswith("127.")]


def test_on_all_addresses_with_a_key_of_ones_own_and_the_log_on_standard_error(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.touch(mode=0o600)
    key_file.write_text(f"{KEY}\n")
    options = ("--host", "0.0.0.0", "--key-file", str(key_file), "--log", "-")
    with Serving(write_repository(tmp_path), *options) as serving:
        serving.wait_ready()
        port = serving.address.rpartition(":")[2]
        assert serving.address == f"127.0.0.1:{port}"
        assert f"Whoever reaches 0.0.0.0:{port} can send images" in serving.report
        for host in ("127.0.0.1", *own_addresses()):
            with Caller(f"{host}:{port}") as caller:
                assert caller.add_three(1) == 4
            credentials = Credentials(server_key=key_file)
            with contextlib.closing(ModelControl(f"{host}:{port}", credentials=credentials)) as control:
                assert control.unloaded() == []
        # Before it is hidden, Triton has read it.
        server = serving.server
        assert not any(
            KEY in argument for process in (serving.process.pid, server.pid) for argument in cmdline(process)
        )
        serving.process.send_signal(signal.SIGTERM)
        code, errors = serving.end()
    assert code == 0
    assert "successfully loaded 'detection'" in errors
    assert KEY not in errors
    assert not serving.log.exists()


def cmdline(pid: int) -> list[str]:
    return psutil.Process(pid).cmdline()


def test_a_server_that_logs_to_standard_error_says_why_it_did_not_start(tmp_path: Path) -> None:
    with Serving(write_repository(tmp_path, detector="os.abort()"), "--log", "-") as serving:
        code, errors = serving.end()
    assert code == 1
    assert re.search(r"^error: detector did not load: its process died.*; the whole log is above$", errors, re.M)


@pytest.mark.parametrize("mutual", [False, True])
def test_tls_lets_in_who_it_should_and_ourselves(tmp_path: Path, mutual: bool) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    certificate, key = authority.issue("server", "detector.example", "*.shop.example")
    client, client_key = authority.issue("client")
    stranger, stranger_key = other.issue("stranger")
    tls = ServerTls(certificate, key, authority.certificate if mutual else None)
    repository = write_repository(tmp_path)
    with TritonServer(repository, ports=Ports.free(), log_path=tmp_path / "log", tls=tls) as server:
        address, name = server.grpc_address, "detector.example"
        ours = Credentials(authority.certificate, client, client_key, name)
        assert reaches(address, ours) == "yes"
        assert reaches(address, Credentials(authority.certificate, client, client_key, "a.shop.example")) == "yes"
        for wrong in (
            Credentials(),
            Credentials(other.certificate, client, client_key, name),
            Credentials(authority.certificate, client, client_key, "elsewhere.example"),
            Credentials(authority.certificate, client, client_key),
        ):
            assert reaches(address, wrong) != "yes"
        for unknown in (
            Credentials(authority.certificate, server_name=name),
            Credentials(authority.certificate, stranger, stranger_key, name),
        ):
            assert (reaches(address, unknown) == "yes") is not mutual
        # Model control, the canary and the supervisor have their own way in.
        lines: list[str] = []
        supervisor = Supervisor(server, lines.append)
        supervisor.check()
        os.kill(server.model_processes()["detector"][0], signal.SIGKILL)
        deadline = time.monotonic() + 20
        while not lines and time.monotonic() < deadline:
            supervisor.check()
            time.sleep(0.1)
        assert "detector: its process" in lines[0]
        server.drain()
    assert leftovers(server) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_every_request_that_was_taken_is_answered_before_it_ends(tmp_path: Path, number: signal.Signals) -> None:
    repository = write_repository(tmp_path)
    for stage in ("preprocess", "detector", "postprocess"):
        model = repository / stage / "1" / "model.py"
        model.write_text(model.read_text().replace("numbers =", "time.sleep(0.03); numbers ="))
    with Serving(repository) as serving:
        serving.wait_ready()
        (mark,) = (a.rpartition("=")[2] for a in serving.server.cmdline() if "shm-region-prefix-name" in a)
        answers: list[tuple[float, float, str]] = []
        done = threading.Event()

        def call() -> None:
            with Caller(serving.address) as caller:
                while not done.is_set():
                    began = time.monotonic()
                    try:
                        answer = "right" if caller.add_three(1) == 4 else "wrong"
                    except grpc.RpcError as error:
                        answer = str(error.details())
                    answers.append((began, time.monotonic(), answer))
                    if answer != "right":
                        done.wait(0.02)

        threads = [threading.Thread(target=call) for _ in range(12)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(answers) > 30)
        signalled = time.monotonic()
        serving.process.send_signal(number)
        code, errors = serving.end()
        done.set()
        for thread in threads:
            thread.join()
    assert (code, errors) == (0, "")
    in_flight = Counter(answer for began, ended, answer in answers if began < signalled < ended)
    assert in_flight.keys() == {"right"}
    assert in_flight.total() >= 10
    # Each that came later was refused as it came, or taken and answered: none was dropped halfway.
    later = {answer for began, _, answer in answers if began >= signalled}
    assert not [answer for answer in later if "in ensemble" in answer or answer == "wrong"]
    assert marked_processes(mark) == []
    assert not [*tmp_path.glob("triptych-*"), *Path("/dev/shm").glob(f"{mark}*")]
    assert not access.read_key(serving.address)
