"""`triptych models` and `triptych activate`, on versions that are small files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from triptych.cli import models as commands
from triptych.errors import BuildError, ServerUnavailable
from triptych.serving.repository import versions

app = typer.Typer()
app.command()(commands.models)
app.command()(commands.activate)

MANIFEST = {
    "adapted": {"source": "pcb.onnx", "head": "raw"},
    "precision": "int8",
    "target": "openvino",
    "published": "2026-11-25T17:04:34+00:00",
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two versions, of which the first is served; the second has no manifest."""
    for number in (1, 2):
        directory = tmp_path / "detector" / str(number)
        directory.mkdir(parents=True)
        (directory / "config.pbtxt").write_text(f"version_policy {{ specific {{ versions: {number} }} }}\n")
    (tmp_path / "detector" / "1" / "manifest.json").write_text(json.dumps(MANIFEST))
    (tmp_path / "detector" / "1" / "model.onnx").write_bytes(bytes(2_500_000))
    (tmp_path / "detector" / "config.pbtxt").write_text("version_policy { specific { versions: 1 } }\n")
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "160"}).invoke(app, list(map(str, arguments)))


def served(repository: Path) -> list[int]:
    return [version.number for version in versions(repository) if version.is_served]


def test_a_table_for_people(repository: Path) -> None:
    result = run("models", "--model-repository", repository)
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines() if line.lstrip()[:1].isdigit()]
    assert rows == [
        ["1", "yes", "pcb.onnx", "raw", "int8", "openvino", "2026-11-25", "17:04", "2.5"],
        ["2", "?", "?", "?", "?", "?", "0.0"],
    ]


def test_eighty_columns_break_nothing_but_a_file_s_name(repository: Path) -> None:
    adapted = {"source": "a_file_of_a_rather_long_name_from_the_training.onnx", "head": "objectness"}
    manifest = json.dumps(MANIFEST | {"adapted": adapted})
    (repository / "detector" / "1" / "manifest.json").write_text(manifest)
    narrow = CliRunner(env={"COLUMNS": "80"})
    lines = narrow.invoke(app, ["models", "--model-repository", str(repository)]).output.splitlines()
    assert max(map(len, lines)) <= 80
    (row,) = (line for line in lines if line.strip().startswith("1"))
    for word in ("objectness", "int8", "openvino", "2026-11-25 17:04", "2.5"):
        assert word in row


def test_json_for_programs(repository: Path) -> None:
    result = run("models", "--model-repository", repository, "--json")
    first, second = json.loads(result.stdout)
    assert (first["version"], first["served"], first["manifest"]) == (1, True, MANIFEST)
    assert first["bytes"] > 2_500_000
    assert (second["version"], second["served"], second["manifest"]) == (2, False, {})


@pytest.mark.parametrize("text", ["[]", "1", '"text"', "null", '{"adapted": []}'])
def test_a_manifest_that_is_none(repository: Path, text: str) -> None:
    (repository / "detector" / "1" / "manifest.json").write_text(text)
    result = run("models", "--model-repository", repository)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[3].split()[:4] == ["1", "yes", "?", "?"]


def test_a_repository_without_versions(tmp_path: Path) -> None:
    result = run("models", "--model-repository", tmp_path)
    assert isinstance(result.exception, BuildError)
    assert str(result.exception).endswith("has no published detector; publish one with `triptych build MODEL.onnx`")


def test_activate_takes_effect_at_the_next_start(repository: Path) -> None:
    result = run("activate", 2, "--model-repository", repository)
    assert result.exit_code == 0, result.output
    assert "version 2 is served from the next start" in result.output
    assert served(repository) == [2]


def test_activate_a_version_that_is_not_there(repository: Path) -> None:
    result = run("activate", 7, "--model-repository", repository)
    assert isinstance(result.exception, BuildError)
    assert "there is no version 7 of the detector" in str(result.exception)
    assert "there is 1, 2" in str(result.exception)


def test_activate_without_a_server_changes_nothing(repository: Path, nobody: str) -> None:
    result = run("activate", 2, "--model-repository", repository, "--address", nobody)
    assert isinstance(result.exception, ServerUnavailable)
    assert served(repository) == [1]
