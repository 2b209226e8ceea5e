"""`triptych serve`: its options, its report, its signals and how it ends, with a server that does not run."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, cast

import pytest
import typer
from typer.testing import CliRunner, Result

from triptych.cli import serve as command
from triptych.errors import ContractError, ServerCrashed, ServerStartError
from triptych.serving import Ports, TritonServer
from triptych.serving.log_format import FORMAT_VARIABLE
from triptych.serving.supervisor import Supervisor
from triptych.wire.model_control import ModelControl

app = typer.Typer()
app.command()(command.serve)


class Server(TritonServer):
    """A server that is ready at once; the attributes of the class say what goes wrong."""

    made: ClassVar[list[Server]] = []
    start_error: ClassVar[Exception | None] = None
    signal_at_start: ClassVar[bool] = False
    signal_at_stop: ClassVar[bool] = False

    def start(self) -> None:
        self.made.append(self)
        self.ended, self.is_drained = "", False
        if self.start_error:
            raise self.start_error
        if self.signal_at_start:
            os.kill(os.getpid(), signal.SIGTERM)

    def wait_ready(self) -> None:
        self.ready_s = 1.5
        self.decisions = {"preprocess": "decided for 4 cores", "detector": "1 thread each, as it was published"}

    @property
    def control(self) -> ModelControl:
        return cast(ModelControl, None)  # the supervisor's checks are the tests' own

    def served(self) -> dict[tuple[str, str], int]:
        return {("detection", "1"): 0, ("preprocess", "1"): 2, ("detector", "3"): 1}

    def drain(self) -> None:
        self.is_drained = True

    def stop(self) -> None:
        self.ended = self.ended or ("drained and stopped" if self.is_drained else "stopped")
        if self.signal_at_stop:
            type(self).signal_at_stop = False
            os.kill(os.getpid(), signal.SIGINT)

    def kill(self) -> None:
        self.ended = "killed"


@pytest.fixture(autouse=True)
def _server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Serve with `Server`; the test's process keeps its own handlers of signals."""
    monkeypatch.setattr(command, "TritonServer", Server)
    monkeypatch.setattr(Server, "made", [])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def send_signal(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """Have a signal come at the first check of the supervisor."""
    monkeypatch.setattr(Supervisor, "check", lambda supervisor: os.kill(os.getpid(), number))


def run(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "160"}).invoke(app, list(map(str, arguments)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_reports_what_runs_and_stops_on_a_signal(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    send_signal(monkeypatch, number)
    result = run("--log", "/log")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "Triton serves detection, ready in 1.5 s",
        "  preprocess   version 1, 2 instances (decided for 4 cores)",
        "  detector     version 3, 1 instance (1 thread each, as it was published)",
        "  gRPC         127.0.0.1:8001",
        "  metrics      http://127.0.0.1:8002/metrics",
        "  log          /log",
        "Try it with `triptych detect IMAGE`; stop it with Ctrl-C.",
        "Stopped.",
    ]
    assert Server.made[0].ended == "drained and stopped"


def test_it_says_why_what_was_tuned_is_not_applied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tuned.json").write_text("{}")
    send_signal(monkeypatch, signal.SIGTERM)
    result = run("--model-repository", tmp_path)
    assert f"{tmp_path / 'tuned.json'} is not applied, since it names no settings; `triptych tune`" in result.stdout


def test_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    send_signal(monkeypatch, signal.SIGTERM)
    ports = ("--grpc-port", 1, "--http-port", 2, "--metrics-port", 3)
    result = run(
        "--model-repository",
        tmp_path,
        *ports,
        "--ready-timeout-s",
        90,
        "--queue-budget-ms",
        500,
        "--http",
        "--instances",
        "preprocess=3",
    )
    (server,) = Server.made
    assert server.ports == Ports(grpc=1, http=2, metrics=3)
    assert (server._model_repository, server._ready_timeout_s) == (tmp_path, 90)
    assert server._fitting._queue_budget_ms == 500
    assert server._fitting._instances == {"preprocess": 3}
    assert "  HTTP         http://127.0.0.1:2\n" in result.stdout
    assert "`triptych detect IMAGE --address 127.0.0.1:1`" in result.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "there is no TLS"),
        (("--tls-certificate", "c", "--tls-key", "k"), "--client-ca lets only known clients in"),
        (("--tls-certificate", "c", "--tls-key", "k", "--client-ca", "a"), None),
    ],
)
def test_it_says_who_can_reach_it(monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], said: str | None) -> None:
    send_signal(monkeypatch, signal.SIGTERM)
    words = "Whoever reaches 0.0.0.0:8001 can send images"
    assert words not in run(*options).stdout
    report = run("--host", "0.0.0.0", *options).stdout
    assert "  gRPC         127.0.0.1:8001\n" in report
    assert (words in report) is (said is not None)
    assert (said or "") in report
    assert "HTTP has no TLS" in run("--host", "0.0.0.0", "--http").stdout


def test_the_key_and_the_time_to_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    send_signal(monkeypatch, signal.SIGTERM)
    key = tmp_path / "key"
    key.write_text("0123456789abcdef\n")
    key.chmod(0o640)
    run("--key-file", key, "--exit-timeout-s", 20, "--log", "-")
    (server,) = Server.made
    assert (server._key, server._exit_timeout_s) == ("0123456789abcdef", 20)
    key.chmod(0o644)
    assert f"--key-file {key} can be read by every user" in str(run("--key-file", key).exception)
    key.chmod(0o600)
    key.write_text("short")
    assert "the server's key must be 16 to 256 letters" in str(run("--key-file", key).exception)
    assert "cannot be read: No such file" in str(run("--key-file", tmp_path / "none").exception)


@pytest.mark.parametrize("options", [("--tls-certificate", "a"), ("--tls-key", "a"), ("--client-ca", "a")])
def test_half_of_tls(options: tuple[str, ...]) -> None:
    assert "give both" in str(run(*options).exception)
    assert Server.made == []


def test_free_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    send_signal(monkeypatch, signal.SIGTERM)
    run("--free-ports", "--grpc-port", 1)
    ports = Server.made[0].ports
    assert len({ports.http, ports.grpc, ports.metrics, 1}) == 4


@pytest.mark.parametrize(
    "arguments", [("--grpc-port", 0), ("--ready-timeout-s", 0), ("--queue-budget-ms", 0), ("--summaries",)]
)
def test_a_wrong_command_line(arguments: tuple[object, ...]) -> None:
    assert run(*arguments).exit_code == 2
    assert Server.made == []


def test_the_log_is_shown_as_it_grows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    followed: list[Path] = []
    monkeypatch.setattr(command, "_follow", followed.append)
    send_signal(monkeypatch, signal.SIGTERM)
    run("--verbose", "--log", tmp_path / "log")
    assert followed == [tmp_path / "log"]


def test_a_server_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "start_error", ServerStartError("no port"))
    result = run()
    assert isinstance(result.exception, ServerStartError)
    assert result.stdout == ""
    assert Server.made[0].ended == "stopped"


def test_a_server_that_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(supervisor: Supervisor) -> None:
        raise ServerCrashed("the server was killed")

    monkeypatch.setattr(Supervisor, "check", crash)
    result = run()
    assert isinstance(result.exception, ServerCrashed)
    assert "Stopped." not in result.stdout
    assert Server.made[0].ended == "stopped"


def test_a_signal_while_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "signal_at_start", True)
    result = run()
    assert (result.exit_code, result.stdout) == (0, "Stopped.\n")
    assert Server.made[0].ended == "stopped"


@pytest.mark.parametrize("again", ["before it stops", "while it stops"])
def test_a_second_signal_kills(monkeypatch: pytest.MonkeyPatch, again: str) -> None:
    if again == "before it stops":

        def twice(supervisor: Supervisor) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(Supervisor, "check", twice)
    else:
        monkeypatch.setattr(Server, "signal_at_stop", True)
        send_signal(monkeypatch, signal.SIGINT)
    result = run()
    assert result.exit_code == 130
    assert Server.made[0].ended == "killed"
    assert "Stopped." not in result.stdout


def test_as_json_each_line_is_an_object(monkeypatch: pytest.MonkeyPatch) -> None:
    send_signal(monkeypatch, signal.SIGTERM)
    monkeypatch.setenv(FORMAT_VARIABLE, "text")
    logger = logging.getLogger("triptych")
    before = (logger.handlers[:], logger.propagate, logger.level)
    try:
        result = run("--log-format", "json")
        assert os.environ[FORMAT_VARIABLE] == "json", "the models' processes are told"
    finally:
        logger.handlers[:], logger.propagate, level = before
        logger.setLevel(level)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines[0]["message"].startswith("Triton serves detection, ready in 1.5 s")
    assert lines[-1]["message"] == "Stopped."
    assert {line["source"] for line in lines} == {"serve"}


def test_where_traces_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FORMAT_VARIABLE, "text")
    refused = run("--otel-url", "localhost:4318")
    assert isinstance(refused.exception, ContractError)
    assert "http://127.0.0.1:4318/v1/traces" in str(refused.exception)
