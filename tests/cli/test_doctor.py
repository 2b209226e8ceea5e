"""`triptych doctor` on a published repository, sound and damaged."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from support.doctor_facts import pretend_plan
from triptych import __version__
from triptych.cli.doctor import doctor
from triptych.errors import ServerUnavailable

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


def test_a_sound_repository_passes(repository: Path) -> None:
    code, report = run("--model-repository", repository)
    assert (code, report["worst"]) == (0, "warning")
    unverified, loads = report["findings"]
    assert unverified == {
        "severity": "warning",
        "id": "not-verified",
        "subject": "version 1 (served)",
        "text": "it was never verified",
        "advice": "publish it with labelled images to verify it on",
    }
    assert loads["id"] == "loads"
    assert loads["text"].startswith("nothing found that keeps Triton from pip on this machine")


def test_a_report_of_a_fault_names_the_machine(repository: Path) -> None:
    _, report = run("--model-repository", repository)
    assert report["machine"]["triptych"] == __version__
    assert report["machine"]["packages"]["nvidia-pytriton"] == version("nvidia-pytriton")
    assert {"python", "platform", "cpu", "cores", "gpus"} <= set(report["machine"])


def test_a_finding_is_a_line_for_people(repository: Path) -> None:
    result = CliRunner().invoke(app, ["--model-repository", str(repository)])
    assert result.exit_code == 0
    assert "warning          version 1 (served): it was never verified; publish it with" in result.stdout
    assert len(result.stdout.splitlines()) == 2


def cut_model(repository: Path) -> None:
    path = repository / "detector" / "1" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1000])


def remove_model(repository: Path) -> None:
    (repository / "detector" / "1" / "model.onnx").unlink()


def break_config(repository: Path) -> None:
    for directory in (repository / "detector", repository / "detector" / "1"):
        (directory / "config.pbtxt").write_text("max_batch_size: many\n")


def shrink_batch(repository: Path) -> None:
    for directory in (repository / "detector", repository / "detector" / "1"):
        path = directory / "config.pbtxt"
        path.write_text(path.read_text().replace("max_batch_size: 16", "max_batch_size: 8"))


def remove_preprocess(repository: Path) -> None:
    (repository / "preprocess" / "config.pbtxt").unlink()


@pytest.mark.parametrize(
    ("damage", "finding_id", "message"),
    [
        (cut_model, "model-changed", "its model.onnx is not the file that was published"),
        (remove_model, "model-missing", "its model.onnx is missing"),
        (break_config, "config-unreadable", "is not a model configuration"),
        (shrink_batch, "batch-below-ensemble", "forms batches of up to 8, and the ensemble brings 16"),
        (
            pretend_plan,
            "backend-missing",
            "it needs Triton's TensorRT backend, and Triton from pip has only the Python backend",
        ),
        (remove_preprocess, "deployment-error", "there is no "),
    ],
)
def test_a_damaged_repository_fails_in_words(
    repository: Path, damage: Callable[[Path], None], finding_id: str, message: str
) -> None:
    damage(repository)
    code, report = run("--model-repository", repository)
    assert (code, report["worst"]) == (1, "will not load")
    assert any(finding["id"] == finding_id and message in finding["text"] for finding in report["findings"]), report
    assert all("\n" not in finding["text"] for finding in report["findings"])


@pytest.mark.parametrize("content", [None, "{", "[1, 2]"])
def test_a_version_without_a_manifest_is_a_warning(repository: Path, content: str | None) -> None:
    path = repository / "detector" / "1" / "manifest.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    code, report = run("--model-repository", repository)
    assert code == 0
    assert any("it has no manifest that can be read" in finding["text"] for finding in report["findings"])


def test_a_server_that_does_not_answer(repository: Path, nobody: str) -> None:
    result = CliRunner().invoke(app, ["--model-repository", str(repository), "--address", nobody])
    assert isinstance(result.exception, ServerUnavailable)


def test_what_no_gate_has_passed_is_not_to_be_served(repository: Path) -> None:
    code, report = run("--model-repository", repository, "--verified")
    assert (code, report["worst"]) == (1, "not to be served")
    assert [finding["id"] for finding in report["findings"]] == ["not-verified", "loads"]
    path = repository / "detector" / "1" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["verification"] = {"passed": True, "model_sha256": manifest["model_sha256"], "gpu": None}
    path.write_text(json.dumps(manifest))
    assert run("--model-repository", repository, "--verified")[0] == 0


def test_an_older_version_that_is_not_served_does_not_keep_the_served_one_from_starting(repository: Path) -> None:
    path = repository / "detector" / "1" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"verification": {"passed": True}}))
    shutil.copytree(repository / "detector" / "1", repository / "detector" / "2")
    (repository / "detector" / "2" / "model.onnx").unlink()
    assert run("--model-repository", repository)[0] == 1
    assert run("--model-repository", repository, "--verified")[0] == 0


def test_a_repository_that_an_older_release_laid_out(repository: Path) -> None:
    path = repository / "postprocess" / "config.pbtxt"
    path.write_text(path.read_text().replace("dims: [-1, 4]", "dims: [100, 4]"))
    code, report = run("--model-repository", repository)
    assert code == 1
    (old,) = [finding for finding in report["findings"] if finding["id"] == "layout-of-older"]
    assert old["text"] == "an older Triptych laid out postprocess: its BOXES are not those of this release"
    assert "triptych init DIR" in old["advice"]
