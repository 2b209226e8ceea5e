"""`triptych publish`: how a detector is spread over the machine, and a version that is served."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import typer

from support.commands import invoke
from support.detectors import raw_model
from triptych.cli import publish as command
from triptych.cli.publish import GpuNumbers, PublishOptions
from triptych.errors import BuildError
from triptych.model_config import read_config
from triptych.serving.repository import versions
from triptych_build.adapt.adapter import adapt_file
from triptych_build.publish.target import InstanceGroup

run = partial(invoke, command.publish)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "repository"
    path.mkdir()
    return path


@pytest.fixture(autouse=True)
def _sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "available_cores", lambda: 16)


def test_the_usual_group() -> None:
    assert PublishOptions().group() == InstanceGroup(8, 2, cores=16)
    assert PublishOptions(target="tensorrt").group() == InstanceGroup(2, 2), "two on each GPU"


def test_a_group_of_its_own() -> None:
    given = PublishOptions(instances=3, threads=4, gpus=GpuNumbers((0, 2)), max_queue_delay_us=500)
    for target in ("openvino", "tensorrt"):
        assert replace(given, target=target).group() == InstanceGroup(3, 4, (0, 2), 500)


@pytest.mark.parametrize(("text", "numbers"), [("0", (0,)), ("3, 0,3", (0, 3))])
def test_numbers_of_gpus(text: str, numbers: tuple[int, ...]) -> None:
    assert GpuNumbers.parse(text) == numbers


@pytest.mark.parametrize("text", ["", "a", "0,,1", "-1", "1.5"])
def test_what_are_no_numbers_of_gpus(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected numbers of GPUs such as 0,1"):
        GpuNumbers.parse(text)


def test_a_version(tmp_path: Path, repository: Path) -> None:
    adapt_file(raw_model(tmp_path / "source.onnx"), tmp_path / "adapted.onnx")
    result = run(tmp_path / "adapted.onnx", "--model-repository", repository, "--instances", 1)
    assert result.exit_code == 0, result.output
    assert result.output == (
        f"publish: {repository / 'detector' / '1'} for openvino\npublish: the next start serves version 1\n"
    )
    assert [version.number for version in versions(repository) if version.is_served] == [1]
    assert read_config(repository / "detector").instance_group[0].count == 1


def test_a_file_that_is_not_adapted(tmp_path: Path, repository: Path) -> None:
    result = run(raw_model(tmp_path / "source.onnx"), "--model-repository", repository)
    assert isinstance(result.exception, BuildError)
    assert "run `triptych adapt" in str(result.exception)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--instances", "0"], "--instances"),
        (["--threads", "0"], "--threads"),
        (["--keep", "0"], "--keep"),
        (["--max-queue-delay-us", "-1"], "--max-queue-delay-us"),
        (["--target", "abacus"], "--target"),
        (["--gpus", "x"], "expected numbers of GPUs such as 0,1, but got 'x'"),
    ],
)
def test_a_wrong_command_line(tmp_path: Path, words: list[str], message: str) -> None:
    result = run(tmp_path / "adapted.onnx", *words)
    assert result.exit_code == 2
    assert message in result.output
