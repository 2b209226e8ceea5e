"""What is profiled: files and versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support import ROOT
from support.detectors import raw_model
from support.graphs import adapted
from support.plans import built_by, plan_file
from triptych.errors import BuildError
from triptych_build.profile.subject import find
from triptych_build.publish.publish import publish
from triptych_build.publish.target import InstanceGroup


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return adapted(raw_model(tmp_path / "source.onnx"))


@pytest.fixture
def repository(tmp_path: Path, model: Path) -> Path:
    """A model repository with one version, of three threads, in ONNX Runtime."""
    path = tmp_path / "repository"
    path.mkdir()
    publish(model, "onnxruntime-python", path, InstanceGroup(2, 3))
    return path


def test_a_file_runs_as_it_would_be_published(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triptych_build.profile.subject.available_cores", lambda: 32)
    subject = find(str(model), tmp_path)
    assert (subject.name, subject.path, subject.runtime, subject.threads) == (model.name, model, "openvino", 4)
    assert (subject.precision, subject.detector) == ("fp32", None)
    assert find(str(model), tmp_path, "onnxruntime", 1).runtime == "onnxruntime"


def test_a_version_runs_as_it_is_served(repository: Path) -> None:
    subject = find("1", repository)
    assert (subject.name, subject.runtime, subject.threads) == ("version 1", "onnxruntime", 3)
    assert subject.path == repository / "detector" / "1" / "model.onnx"
    assert subject.detector is not None
    assert (subject.detector.version, subject.detector.instances) == (1, 2)
    other = find("1", repository, "openvino", 2)
    assert (other.runtime, other.threads) == ("openvino", 2)


def test_a_plan_knows_its_precision_by_its_record(tmp_path: Path) -> None:
    subject = find(str(plan_file(tmp_path, built_by("tensorrt"))), tmp_path)
    assert (subject.runtime, subject.threads, subject.precision) == ("tensorrt", None, "fp16")
    (tmp_path / "other.plan").write_bytes(b"plan")
    assert find(str(tmp_path / "other.plan"), tmp_path).precision == "unknown"


def test_a_version_of_a_plan(tmp_path: Path) -> None:
    publish(plan_file(tmp_path, built_by("tensorrt")), "tensorrt-python", tmp_path, InstanceGroup(1))
    subject = find("1", tmp_path)
    assert (subject.runtime, subject.threads, subject.precision) == ("tensorrt", None, "fp16")


def test_a_version_that_was_changed_since(repository: Path) -> None:
    (repository / "detector" / "1" / "model.onnx").write_bytes(b"cut")
    with pytest.raises(BuildError, match=r"its model\.onnx is not the file that was published"):
        find("1", repository)


@pytest.mark.parametrize(
    ("word", "runtime", "message"),
    [
        ("7", None, "there is no version 7 of the detector in .*; there is 1"),
        ("missing.onnx", None, r"there is no file missing\.onnx"),
        ("missing.plan", None, r"there is no file missing\.plan"),
        ("missing.plan", "openvino", "is a plan, which openvino does not run; choose --runtime tensorrt"),
        ("missing.onnx", "tensorrt", "is an ONNX, which tensorrt does not run; choose --runtime onnxruntime or openv"),
        (str(ROOT / "demo" / "pcb.onnx"), None, "is not adapted to the contract; run `triptych adapt"),
        (str(ROOT / "README.md"), None, r"README\.md is not a whole ONNX model"),
    ],
)
def test_what_is_refused(repository: Path, word: str, runtime: str | None, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        find(word, repository, runtime)


def test_the_precision_is_the_manifests_where_a_version_is_a_plan_without_its_own(tmp_path: Path) -> None:
    publish(plan_file(tmp_path, built_by("tensorrt")), "tensorrt", tmp_path, InstanceGroup(1))
    manifest = json.loads((tmp_path / "detector" / "1" / "manifest.json").read_text())
    assert find("1", tmp_path).precision == manifest["precision"]
