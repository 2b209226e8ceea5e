"""`triptych doctor` against the real Triton: what it asks of a running server, and whether Triton agrees with it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from support.doctor_facts import pretend_plan
from triptych.cli.doctor import doctor
from triptych.errors import ServerStartError
from triptych.model_config import read_config
from triptych.serving import Ports, TritonServer
from triptych.serving.doctor.gathering import ask_server

pytestmark = pytest.mark.triton

app = typer.Typer()
app.command()(doctor)


@pytest.fixture
def repository(demo_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A published detector to damage, on a machine whose python3 is the environment's."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    return Path(shutil.copytree(demo_repository, tmp_path / "model_repository"))


def run(*arguments: object) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(app, ["--json", *map(str, arguments)])
    return result.exit_code, json.loads(result.stdout)


def test_a_running_server_is_asked(repository: Path, demo_server: TritonServer) -> None:
    deployment = ask_server(demo_server.grpc_address)
    assert (deployment.is_pip, deployment.triton, deployment.serving) == (True, "2.51.0", frozenset({1}))
    code, report = run("--model-repository", repository, "--address", demo_server.grpc_address)
    assert code == 0, report
    pretend_plan(repository)
    code, report = run("--model-repository", repository, "--address", demo_server.grpc_address)
    assert code == 1
    assert "backend-missing" in {finding["id"] for finding in report["findings"]}


@pytest.mark.slow
def test_triton_refuses_the_batches_that_the_doctor_refuses(repository: Path, tmp_path: Path) -> None:
    for directory in (repository / "detector", repository / "detector" / "1"):
        path = directory / "config.pbtxt"
        path.write_text(path.read_text().replace("max_batch_size: 16", "max_batch_size: 8"))
    assert read_config(repository / "detector").max_batch_size == 8
    code, report = run("--model-repository", repository)
    assert code == 1
    assert "batch-below-ensemble" in {finding["id"] for finding in report["findings"]}
    with (
        pytest.raises(ServerStartError, match="batch"),
        TritonServer(repository, ports=Ports.free(), log_path=tmp_path / "log"),
    ):
        pass
