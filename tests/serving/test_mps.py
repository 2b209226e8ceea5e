"""The service with which processes share a GPU: it starts and ends with a server, unless the machine has its own."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from support.mps import install
from triptych.serving import mps
from triptych.serving.mps import LOGS, PIPES, mps_environment, start_mps, stop_mps
from triptych.serving.scratch import Belongings, Scratch


def test_it_is_started_and_ended_in_the_servers_own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = install(tmp_path, monkeypatch)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert mps_environment(scratch) == {}
    assert start_mps(scratch) == "started for this server"
    pipes = scratch / "mps"
    assert mps_environment(scratch) == {PIPES: str(pipes), LOGS: str(scratch / "mps-log")}
    assert (pipes / "control").exists()
    stop_mps(scratch)
    assert calls.read_text().splitlines() == [f"-d  in {pipes}", f" quit in {pipes}"]


def test_it_ends_with_the_servers_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = install(tmp_path, monkeypatch)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    scratch = Scratch(Belongings("triptych_test_mps_", "secret", str(tmp_path / "key")))
    start_mps(scratch.directory)
    scratch.remove()
    assert calls.read_text().splitlines()[-1].startswith(" quit in ")
    assert not scratch.directory.exists()


def test_a_server_without_one_ends_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = install(tmp_path, monkeypatch)
    stop_mps(tmp_path)
    assert not calls.exists()


def test_the_machines_own_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = install(tmp_path, monkeypatch)
    mps.MACHINES_OWN.mkdir()
    (mps.MACHINES_OWN / "control").touch()
    assert start_mps(tmp_path) == "the machine's own"
    monkeypatch.setenv(PIPES, "/elsewhere")
    assert start_mps(tmp_path) == "as CUDA_MPS_PIPE_DIRECTORY says"
    assert mps_environment(tmp_path) == {}
    assert not calls.exists()


@pytest.mark.parametrize(
    ("visible", "starts"),
    [("", True), ("0", True), ("0,1", True), ("1", False), ("1,0", False), ("0,2", False), ("GPU-8f6d", False)],
)
def test_gpus_that_it_would_number_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str, starts: bool
) -> None:
    calls = install(tmp_path, monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    said = start_mps(tmp_path)
    assert calls.exists() is starts
    if not starts:
        assert f"CUDA_VISIBLE_DEVICES={visible} does not allow for; start it yourself" in said


def test_without_the_program_the_server_does_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)
    monkeypatch.setenv("PATH", "/nowhere")
    assert start_mps(tmp_path).endswith("wait for their turn on the GPU: there is no nvidia-cuda-mps-control")
    assert mps_environment(tmp_path) == {}


def test_if_it_fails_the_server_does_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, code=3)
    assert start_mps(tmp_path) == "none: nvidia-cuda-mps-control ended with code 3"
    assert mps_environment(tmp_path) == {}
