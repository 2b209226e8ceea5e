"""Publishing: versions, manifests, and nothing half-written."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import adapt
import publish
from adapt import Overrides
from detectors import raw_model
from publish import InstanceGroup
from support import ROOT
from triptych.config import read_config
from triptych.errors import BuildError

GROUP = InstanceGroup(count=1, threads=1)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "repository"
    path.mkdir()
    return path


@pytest.fixture
def adapted(tmp_path: Path) -> Path:
    adapt.adapt_file(raw_model(tmp_path / "source.onnx"), tmp_path / "adapted.onnx", Overrides())
    return tmp_path / "adapted.onnx"


def other(adapted: Path) -> Path:
    path = adapted.with_name("other.onnx")
    adapt.adapt_file(adapted.with_name("source.onnx"), path, Overrides(pad_value=1))
    return path


def test_a_version_holds_engine_model_and_manifest(repository, adapted):
    directory = publish.publish(adapted, "openvino", repository, GROUP)
    assert directory == repository / "detector" / "1"
    assert sorted(path.name for path in directory.iterdir()) == ["manifest.json", "model.onnx", "model.py"]
    manifest = json.loads((directory / "manifest.json").read_text())
    assert manifest["target"] == "openvino"
    assert manifest["model_sha256"] == adapt.sha256(adapted)
    assert manifest["adapted"]["source_sha256"] == adapt.sha256(adapted.with_name("source.onnx"))
    assert read_config(repository / "detector").max_batch_size == 16


def test_versions_count_up_and_the_old_one_stays(repository, adapted):
    publish.publish(adapted, "openvino", repository, GROUP)
    assert publish.publish(other(adapted), "openvino", repository, GROUP).name == "2"
    assert publish.versions(repository / "detector") == [1, 2]
    assert read_config(repository / "detector").parameters["pad_value"].string_value == "1"


def test_the_same_model_twice_is_one_version(repository, adapted):
    first = publish.publish(adapted, "openvino", repository, GROUP)
    assert publish.publish(adapted, "openvino", repository, InstanceGroup(2, 1)) == first
    assert publish.versions(repository / "detector") == [1]
    assert read_config(repository / "detector").instance_group[0].count == 2


def test_a_full_disk_leaves_nothing_behind(repository, adapted, monkeypatch):
    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(BuildError, match="No space left on device; nothing was published"):
        publish.publish(adapted, "openvino", repository, GROUP)
    assert list((repository / "detector").iterdir()) == []


def test_an_unadapted_model_is_refused_with_the_way_out(repository, adapted):
    with pytest.raises(BuildError, match=r"not adapted.*python build/adapt.py"):
        publish.publish(adapted.with_name("source.onnx"), "openvino", repository, GROUP)


@pytest.mark.parametrize(
    ("cores", "count", "threads"), [(1, 1, 1), (2, 2, 1), (6, 6, 1), (8, 8, 1), (16, 8, 2), (96, 8, 12)]
)
def test_instances_times_threads_never_pass_the_cores(cores, count, threads):
    assert InstanceGroup.for_cores(cores) == InstanceGroup(count, threads)


def build(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "build"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_line(repository, adapted):
    done = build(adapted.with_name("source.onnx"), "--repository", repository, "--instances", 1)
    assert done.returncode == 0, done.stderr
    assert "adapt: head raw, 5 classes, 64x64, rgb" in done.stdout
    assert "detector/1 for openvino, 1 instances x 1 threads" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.onnx"], 1, "error: there is no file missing.onnx"),
        (["SOURCE", "--repository", "nowhere"], 1, "error: there is no model repository nowhere"),
        (["SOURCE", "--instances", "0"], 1, "error: instances and threads must be at least 1"),
        (["SOURCE", "--names", "nowhere.txt"], 1, "error: there is no file of class names nowhere.txt"),
        (["SOURCE", "--target", "abacus"], 2, "invalid choice: 'abacus'"),
        (["SOURCE", "--size", "big"], 2, "expected a size like 640x480"),
        (["SOURCE", "--mean", "1,2"], 2, "expected three numbers"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(repository, adapted, arguments, code, message):
    source = str(adapted.with_name("source.onnx"))
    done = build("--repository", repository, *(source if word == "SOURCE" else word for word in arguments))
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (repository / "detector").exists()
