"""Triton's command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from triptych.serving.launch import Launch
from triptych.serving.listening import Listening
from triptych.serving.preflight import Installation, Ports


def test_the_command_line(tmp_path: Path) -> None:
    installation = Installation(Path("/triton/bin/tritonserver"), Path("/python"), Path("/stub"), ())
    free = Ports(http=1, grpc=2, metrics=3)
    listening = Listening(ports=free, http=True)
    launch = Launch(installation, "triptych-1", tmp_path, listening, Path("/scratch"), "mark_", "secret", 5)
    binary, *options = launch.command()
    assert binary == "/triton/bin/tritonserver"
    addresses = {options[i - 1]: options[i] for i in range(1, len(options)) if options[i - 1].endswith("-address")}
    assert addresses == dict.fromkeys(("--http-address", "--grpc-address", "--metrics-address"), "127.0.0.1")
    ports = {options[i - 1]: options[i] for i in range(1, len(options)) if options[i - 1].endswith("-port")}
    assert ports == {"--http-port": "1", "--grpc-port": "2", "--metrics-port": "3"}
    assert options[options.index("--backend-directory") + 1] == "/scratch/backends"
    assert "triton,file=/scratch/traces/trace" in options
    assert "--backend-config=python,shm-region-prefix-name=mark_" in options
    restricted = "model-repository,shared-memory,trace,logging:triptych-key=secret"
    assert {f"--grpc-restricted-protocol={restricted}", f"--http-restricted-api={restricted}"} < set(options)

    options = replace(launch, listening=Listening(ports=free)).command()
    assert "--allow-http=false" in options
    assert f"--grpc-restricted-protocol={restricted}" in options
    assert not [option for option in options if option.startswith("--http")]


def test_who_has_no_home_gets_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installation = Installation(Path("/triton"), Path("/python"), Path("/stub"), ())
    launch = Launch(installation, "triptych-1", tmp_path, Listening(), tmp_path, "mark_", "secret", 5)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    assert launch.environment()["HOME"] == str(tmp_path / "home")
    monkeypatch.setenv("HOME", "/nonexistent")
    assert launch.environment()["HOME"] == str(tmp_path)


def test_a_repository_whose_name_is_more_than_a_word_goes_by_a_link(tmp_path: Path) -> None:
    """Triton puts the name of a model's file into a shell's line."""
    installation = Installation(Path("/triton"), Path("/python"), Path("/stub"), ())
    repository = tmp_path / "my (new) shop's models"
    repository.mkdir()
    launch = Launch(installation, "triptych-1", repository, Listening(), tmp_path, "mark_", "secret", 5)
    assert launch.command()[3:5] == ["--model-repository", str(tmp_path / "models")]
    assert replace(launch, model_repository=tmp_path).command()[4] == str(tmp_path)
