"""Clients that vanish, that are slow, and that are many: the others must not notice."""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from faults.load import Users
from faults.proxy import Proxy
from faults.scenario import BACK_WITHIN_S, Bench, Outcome, Scenario, judge
from faults.service import wait_for

BAD_CLIENTS = 20
IDLE_CONNECTIONS = 2000
SPARE_FILES = 20
"""What the server may have open more than before when the connections are gone."""

_CLIENT = """
import sys
from support.images import JPEG
from triptych import DetectionClient
with DetectionClient(sys.argv[1]) as client:
    while True:
        client.detect(JPEG)
        print(flush=True)
"""


def half_open(bench: Bench) -> Outcome:
    """Cut the way to the server under clients that are in the middle of something, and tell nobody."""
    with _files_return(bench) as outcome, bench.users() as users, Proxy(bench.service.address) as proxy:
        with Users(proxy.address, bench.good, BAD_CLIENTS, timeout_s=2.0) as cut_off:
            time.sleep(1)
            fault_s = time.monotonic()
            proxy.stopped.set()
            time.sleep(_seconds(bench))
        time.sleep(0.5)
        outcome.tally = users.tally(fault_s)
    lost = cut_off.tally(fault_s)
    outcome.broken += judge(outcome.tally, may_fail=False)
    outcome.broken += [one for one in judge(lost, may_fail=True) if "back" not in one]
    outcome.note += f"the {BAD_CLIENTS} that were cut off saw {dict(lost.outcomes)}"
    return outcome


def stopped_clients(bench: Bench) -> Outcome:
    """Stop clients with SIGSTOP in the middle of something, and kill them later."""
    with _files_return(bench) as outcome, bench.users() as users:
        command = [sys.executable, "-c", _CLIENT, bench.service.address]
        clients = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(4)]
        for client in clients:
            assert client.stdout
            client.stdout.readline()
        fault_s = time.monotonic()
        for client in clients:
            client.send_signal(signal.SIGSTOP)
        time.sleep(_seconds(bench))
        for client in clients:
            client.kill()
            client.wait()
            assert client.stdout
            client.stdout.close()
        time.sleep(0.5)
        outcome.tally = users.tally(fault_s)
    outcome.broken += judge(outcome.tally, may_fail=False)
    return outcome


def slow_clients(bench: Bench) -> Outcome:
    """Have clients send a byte a second."""
    with _files_return(bench) as outcome, bench.users() as users, Proxy(bench.service.address) as proxy:
        proxy.slow.set()
        fault_s = time.monotonic()
        with Users(proxy.address, bench.good, BAD_CLIENTS, timeout_s=_seconds(bench)) as slow:
            time.sleep(_seconds(bench))
        outcome.tally = users.tally(fault_s)
    late = slow.tally(fault_s)
    outcome.broken += judge(outcome.tally, may_fail=False)
    outcome.note += f"the {BAD_CLIENTS} slow ones saw {dict(late.outcomes)}"
    return outcome


def idle_connections(bench: Bench) -> Outcome:
    """Open thousands of connections that say nothing, or only hello, within the server's limit of open files."""
    server = bench.service.triton()
    assert server is not None
    limit = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)[0]
    count = min(IDLE_CONNECTIONS, limit // 2)
    hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
    host, _, port = bench.service.address.rpartition(":")
    with _files_return(bench) as outcome, bench.users() as users, contextlib.ExitStack() as stack:
        fault_s = time.monotonic()
        for number in range(count):
            one = stack.enter_context(socket.create_connection((host, int(port)), timeout=5))
            if number % 2:
                one.sendall(hello)
        with contextlib.suppress(TimeoutError):
            wait_for(lambda: server.num_fds() > count, 10, "")
        outcome.note += f"{count} connections, {server.num_fds()} open files of the server (limit {limit})"
        time.sleep(_seconds(bench))
        outcome.tally = users.tally(fault_s)
    outcome.broken += judge(outcome.tally, may_fail=False)
    return outcome


@contextlib.contextmanager
def _files_return(bench: Bench) -> Iterator[Outcome]:
    """Give an outcome, which says at the end if the server still holds the connections of the clients that are gone."""
    server = bench.service.triton()
    assert server is not None
    before = server.num_fds()
    outcome = Outcome.none()
    yield outcome
    try:
        wait_for(lambda: server.num_fds() <= before + SPARE_FILES, BACK_WITHIN_S, "")
    except TimeoutError:
        outcome.broken.append(f"the server still has {server.num_fds()} files open, and had {before}")


def _seconds(bench: Bench) -> float:
    return 3.0 if bench.short else 20.0


_HOLDS = "the other users are answered, and the server lets go of the connections"

SCENARIOS = [
    Scenario("half-open", f"the network of {BAD_CLIENTS} busy clients goes silent", _HOLDS, half_open),
    Scenario("stopped-clients", "SIGSTOP to 4 busy clients, later SIGKILL", _HOLDS, stopped_clients, is_short=False),
    Scenario("slow-clients", f"{BAD_CLIENTS} clients send a byte a second", _HOLDS, slow_clients),
    Scenario("idle-connections", "thousands of connections that say nothing", _HOLDS, idle_connections),
]
