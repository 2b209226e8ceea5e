"""Publishing: versions, manifests, and nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT
from support.detectors import raw_model
from triptych.errors import BuildError, ServerUnavailable
from triptych.files import sha256
from triptych.model_config import read_config
from triptych.serving.repository import activate, prune, versions
from triptych_build.adapt import adapter as adapt
from triptych_build.adapt.adapter import Overrides
from triptych_build.publish import publish
from triptych_build.publish.publish import InstanceGroup

GROUP = InstanceGroup(count=1, threads=1)


def numbers(repository: Path) -> list[int]:
    return [version.number for version in versions(repository)]


def served(repository: Path) -> list[int]:
    return [version.number for version in versions(repository) if version.is_served]


def put(model: Path, repository: Path, target: str = "openvino") -> Path:
    """Published and served."""
    directory = publish.publish(model, target, repository, GROUP)
    activate(repository, int(directory.name))
    return directory


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
    directory = put(adapted, repository)
    assert directory == repository / "detector" / "1"
    assert sorted(path.name for path in directory.iterdir()) == [
        "config.pbtxt",
        "manifest.json",
        "model.onnx",
        "model.py",
    ]
    manifest = json.loads((directory / "manifest.json").read_text())
    assert (manifest["target"], manifest["precision"]) == ("openvino", "fp32")
    assert set(manifest["versions"]) == {"triptych", "onnx", "openvino"}
    assert [manifest[key] for key in ("engine", "calibration", "verification")] == [None] * 3
    assert manifest["model_sha256"] == sha256(adapted)
    assert manifest["adapted"]["source_sha256"] == sha256(adapted.with_name("source.onnx"))
    assert read_config(repository / "detector").max_batch_size == 16


def test_versions_count_up_and_the_old_one_stays(repository, adapted):
    put(adapted, repository)
    assert put(other(adapted), repository).name == "2"
    assert numbers(repository) == [1, 2]
    assert read_config(repository / "detector").parameters["pad_value"].string_value == "1"


def test_the_same_model_twice_is_one_version(repository, adapted):
    first = put(adapted, repository)
    assert publish.publish(adapted, "openvino", repository, InstanceGroup(2, 1)) == first
    assert numbers(repository) == [1]
    activate(repository, 1)
    assert read_config(repository / "detector").instance_group[0].count == 2


def test_an_older_version_of_the_same_model_is_found_again(repository, adapted):
    put(adapted, repository)
    put(other(adapted), repository)
    assert put(adapted, repository).name == "1"
    assert numbers(repository) == [1, 2]
    assert served(repository) == [1]


def test_another_target_is_another_version(repository, adapted):
    put(adapted, repository)
    assert put(adapted, repository, "onnxruntime-python").name == "2"


def test_publishing_alone_serves_nothing(repository, adapted):
    put(adapted, repository)
    publish.publish(other(adapted), "openvino", repository, GROUP)
    assert served(repository) == [1]


def test_what_no_server_takes_leaves_what_was_served(repository, adapted):
    put(adapted, repository)
    publish.publish(other(adapted), "openvino", repository, GROUP)
    with pytest.raises(ServerUnavailable, match=r"no server answers at 127\.0\.0\.1:9"):
        activate(repository, 2, "127.0.0.1:9")
    assert served(repository) == [1]


def test_what_came_before_goes_into_the_manifest(repository, adapted):
    calibration, verification = {"images": 300, "method": "max"}, {"passed": True}
    directory = publish.publish(
        adapted, "openvino", repository, GROUP, calibration=calibration, verification=verification
    )
    manifest = json.loads((directory / "manifest.json").read_text())
    assert (manifest["calibration"], manifest["verification"]) == (calibration, verification)


def test_a_full_disk_leaves_nothing_behind(repository, adapted, monkeypatch):
    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(BuildError, match="No space left on device; nothing was published"):
        put(adapted, repository)
    assert list((repository / "detector").iterdir()) == []


def test_going_back_and_forth(repository, adapted):
    put(adapted, repository)
    put(other(adapted), repository)
    assert served(repository) == [2]
    activate(repository, 1)
    assert served(repository) == [1]
    assert read_config(repository / "detector").parameters["pad_value"].string_value == "114"
    activate(repository, 2)
    assert read_config(repository / "detector").parameters["pad_value"].string_value == "1"


def test_a_version_that_is_not_there_is_one_sentence(repository, adapted):
    put(adapted, repository)
    with pytest.raises(BuildError, match=r"no version 7 of the detector in .*; there is 1"):
        activate(repository, 7)
    (repository / "detector" / "1" / "config.pbtxt").unlink()
    with pytest.raises(BuildError, match="version 1 cannot be served"):
        activate(repository, 1)
    assert served(repository) == [1]


def test_old_versions_go_but_never_the_served_one(repository, adapted):
    for pad_value in range(4):
        path = adapted.with_name(f"{pad_value}.onnx")
        adapt.adapt_file(adapted.with_name("source.onnx"), path, Overrides(pad_value=pad_value))
        put(path, repository)
    activate(repository, 1)
    assert prune(repository, 2) == [2]
    assert numbers(repository) == [1, 3, 4]
    assert prune(repository, 9) == []


def test_the_commands(repository, adapted):
    put(adapted, repository)
    put(other(adapted), repository)

    def triptych(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "triptych", *map(str, words), "--model-repository", str(repository)]
        wide = {**os.environ, "COLUMNS": "160"}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=wide)

    assert triptych("activate", 1).returncode == 0
    listed = triptych("models").stdout
    assert "source.onnx" in listed
    assert served(repository) == [1]
    refused = triptych("activate", 2, "--address", "127.0.0.1:9")
    assert refused.returncode == 3
    assert "no server answers at 127.0.0.1:9" in refused.stderr
    assert served(repository) == [1], "what no server took is not what the repository serves"
    shutil.rmtree(repository / "detector")
    assert "has no published detector" in triptych("models").stderr


def test_an_unadapted_model_is_refused_with_the_way_out(repository, adapted):
    with pytest.raises(BuildError, match=r"not adapted.*triptych adapt"):
        put(adapted.with_name("source.onnx"), repository)


@pytest.mark.parametrize(
    ("cores", "count", "threads"), [(1, 1, 1), (2, 2, 1), (6, 6, 1), (8, 8, 1), (16, 8, 2), (96, 8, 12)]
)
def test_instances_times_threads_never_pass_the_cores(cores, count, threads):
    assert InstanceGroup.for_cores(cores) == InstanceGroup(count, threads)


def build(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "build"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_line(repository, adapted):
    words = [adapted.with_name("source.onnx"), "--repository", repository, "--cache", repository.parent / "cache"]
    done = build(*words, "--instances", 1)
    assert done.returncode == 0, done.stderr
    assert "adapt: head raw, 5 classes, 64x64, rgb" in done.stdout
    assert "detector/1 for openvino in fp32" in done.stdout
    assert "the next start serves version 1" in done.stdout
    assert served(repository) == [1]
    assert read_config(repository / "detector").instance_group[0].count == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.onnx"], 1, "error: there is no file missing.onnx"),
        (["SOURCE", "--repository", "nowhere"], 1, "error: there is no model repository nowhere"),
        (["SOURCE", "--instances", "0"], 1, "error: instances and threads must be at least 1"),
        (["SOURCE", "--keep", "0"], 1, "error: at least 1 version must be kept"),
        (["SOURCE", "--names", "nowhere.txt"], 1, "error: there is no file of class names nowhere.txt"),
        (["SOURCE", "--target", "abacus"], 2, "invalid choice: 'abacus'"),
        (["SOURCE", "--size", "big"], 2, "expected a size like 640x480"),
        (["SOURCE", "--mean", "1,2"], 2, "expected three numbers"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(repository, adapted, arguments, code, message):
    source = str(adapted.with_name("source.onnx"))
    places = ["--repository", repository, "--cache", repository.parent / "cache"]
    done = build(*places, *(source if word == "SOURCE" else word for word in arguments))
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (repository / "detector").exists()
