"""`triptych tune`: what it refuses before it starts a server, and what it writes where."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from support.commands import invoke
from support.pages import make_tuning
from triptych.cli.console import USAGE
from triptych.cli.tune import tune
from triptych.errors import ContractError, ImageError
from triptych.machine import available_cores
from triptych.measure import tuning, tuning_runner
from triptych.measure.tuning import Tuning
from triptych.measure.tuning_runner import Progress, Servers

run = partial(invoke, tune, columns=120)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"x")
    return tmp_path / "images"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Servers]:
    """Measure nothing, and find the same each time; return what was asked for."""
    servers_asked = []

    def found(servers: Servers, minutes: float, command: list[str], progress: Progress) -> Tuning:
        servers_asked.append(servers)
        return make_tuning(1.2 if servers.batch == 1 else 1.0)

    monkeypatch.setattr(tuning_runner, "tune", found)
    return servers_asked


def test_it_writes_what_is_better_into_the_repository(asked: list[Servers], images: Path, repository: Path) -> None:
    result = run("--images", images, "--model-repository", repository)
    assert result.exit_code == 0, result.output
    assert tuning.read(repository / "tuned.json") == make_tuning()
    assert make_tuning().sentence in result.output
    assert f"written to {repository / 'tuned.json'}: the next `triptych serve` here applies it" in result.output
    (servers,) = asked
    assert servers.users == max(8, 4 * available_cores())


def test_it_writes_nothing_where_nothing_is_better(asked: list[Servers], images: Path, repository: Path) -> None:
    result = run("--images", images, "--model-repository", repository, "--batch", 2, "--users", 3)
    assert result.exit_code == 0
    assert "nothing better was found" in result.output
    assert list(repository.iterdir()) == []
    assert (asked[0].users, asked[0].batch) == (3, 2)


def test_without_writing(asked: list[Servers], images: Path, repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuning.json"
    result = run("--images", images, "--model-repository", repository, "--no-write", "--out", out, "--json")
    assert result.exit_code == 0
    assert list(repository.iterdir()) == []
    assert tuning.read(out) == make_tuning()
    assert make_tuning().best.preprocess == 2
    assert "What each step brought" in out.with_suffix(".html").read_text()
    document = json.loads(result.stdout)
    assert (document["sentence"], len(document["tries"])) == (make_tuning().sentence, 5)


def test_a_repository_that_is_not_there(images: Path, tmp_path: Path) -> None:
    error = run("--images", images, "--model-repository", tmp_path / "none").exception
    assert isinstance(error, ContractError)
    assert "--no-write" in str(error)


def test_a_repository_without_a_detector(images: Path, repository: Path) -> None:
    error = run("--images", images, "--model-repository", repository).exception
    assert isinstance(error, ContractError)
    assert "there is no" in str(error)


def test_no_images(tmp_path: Path, repository: Path) -> None:
    assert isinstance(run("--images", tmp_path, "--model-repository", repository).exception, ImageError)


def test_a_page_in_the_place_of_the_file(images: Path, repository: Path) -> None:
    result = run("--images", images, "--model-repository", repository, "--out", "x.html")
    assert result.exit_code == USAGE
