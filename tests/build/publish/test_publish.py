"""Publishing: versions, manifests, and nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from support.detectors import raw_model
from triptych.errors import BuildError, ServerUnavailable
from triptych.files import Hold, sha256
from triptych.model_config import read_config
from triptych.serving.repository import activate, prune, versions
from triptych_build.adapt.adapter import Overrides, adapt_file
from triptych_build.publish.publish import publish, put_into_service
from triptych_build.publish.target import InstanceGroup, TargetName

GROUP = InstanceGroup(count=1, threads=1)


def numbers(repository: Path) -> list[int]:
    return [version.number for version in versions(repository)]


def served(repository: Path) -> list[int]:
    return [version.number for version in versions(repository) if version.is_served]


def put(model: Path, repository: Path, target: TargetName = "openvino") -> Path:
    """Published and served."""
    directory = publish(model, target, repository, GROUP)
    activate(repository, int(directory.name))
    return directory


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "repository"
    path.mkdir()
    return path


@pytest.fixture
def adapted(tmp_path: Path) -> Path:
    adapt_file(raw_model(tmp_path / "source.onnx"), tmp_path / "adapted.onnx")
    return tmp_path / "adapted.onnx"


def other(adapted: Path) -> Path:
    path = adapted.with_name("other.onnx")
    adapt_file(adapted.with_name("source.onnx"), path, Overrides(pad_value=1))
    return path


def test_a_version_holds_engine_model_and_manifest(repository: Path, adapted: Path) -> None:
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


def test_versions_count_up_and_the_old_one_stays(repository: Path, adapted: Path) -> None:
    put(adapted, repository)
    assert put(other(adapted), repository).name == "2"
    assert numbers(repository) == [1, 2]
    assert read_config(repository / "detector").parameters["pad_value"].string_value == "1"


def test_the_same_model_twice_is_one_version(repository: Path, adapted: Path) -> None:
    first = put(adapted, repository)
    assert publish(adapted, "openvino", repository, InstanceGroup(2, 1)) == first
    assert numbers(repository) == [1]
    activate(repository, 1)
    assert read_config(repository / "detector").instance_group[0].count == 2


def test_an_older_version_of_the_same_model_is_found_again(repository: Path, adapted: Path) -> None:
    put(adapted, repository)
    put(other(adapted), repository)
    assert put(adapted, repository).name == "1"
    assert numbers(repository) == [1, 2]
    assert served(repository) == [1]


def test_another_target_is_another_version(repository: Path, adapted: Path) -> None:
    put(adapted, repository)
    assert put(adapted, repository, "onnxruntime-python").name == "2"


def test_publishing_alone_serves_nothing(repository: Path, adapted: Path) -> None:
    put(adapted, repository)
    publish(other(adapted), "openvino", repository, GROUP)
    assert served(repository) == [1]


def test_what_no_server_takes_leaves_what_was_served(repository: Path, adapted: Path) -> None:
    put(adapted, repository)
    publish(other(adapted), "openvino", repository, GROUP)
    with pytest.raises(ServerUnavailable, match=r"no server answers at 127\.0\.0\.1:9"):
        activate(repository, 2, "127.0.0.1:9")
    assert served(repository) == [1]


def test_what_came_before_goes_into_the_manifest(repository: Path, adapted: Path) -> None:
    calibration, verification = {"images": 300, "method": "max"}, {"passed": True}
    directory = publish(adapted, "openvino", repository, GROUP, calibration=calibration, verification=verification)
    manifest = json.loads((directory / "manifest.json").read_text())
    assert (manifest["calibration"], manifest["verification"]) == (calibration, verification)


def test_a_full_disk_leaves_nothing_behind(repository: Path, adapted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(BuildError, match="No space left on device; nothing was published"):
        put(adapted, repository)
    assert [path.name for path in (repository / "detector").iterdir()] == [".publishing.lock"]


def test_going_back_and_forth(repository: Path, adapted: Path) -> None:
    put(adapted, repository)
    put(other(adapted), repository)
    assert served(repository) == [2]
    activate(repository, 1)
    assert served(repository) == [1]
    assert read_config(repository / "detector").parameters["pad_value"].string_value == "114"
    activate(repository, 2)
    assert read_config(repository / "detector").parameters["pad_value"].string_value == "1"


def test_a_version_that_is_not_there_is_one_sentence(repository: Path, adapted: Path) -> None:
    put(adapted, repository)
    with pytest.raises(BuildError, match=r"no version 7 of the detector in .*; there is 1"):
        activate(repository, 7)
    (repository / "detector" / "1" / "config.pbtxt").unlink()
    with pytest.raises(BuildError, match="version 1 cannot be served"):
        activate(repository, 1)
    assert served(repository) == [1]


def test_old_versions_go_but_never_the_served_one(repository: Path, adapted: Path) -> None:
    for pad_value in range(4):
        path = adapted.with_name(f"{pad_value}.onnx")
        adapt_file(adapted.with_name("source.onnx"), path, Overrides(pad_value=pad_value))
        put(path, repository)
    activate(repository, 1)
    assert prune(repository, 2) == [2]
    assert numbers(repository) == [1, 3, 4]
    assert prune(repository, 9) == []


def test_a_version_that_a_server_serves_never_goes(repository: Path, adapted: Path) -> None:
    """The server serves version 1; the repository serves others at the next start, and publishes more than it keeps."""
    for pad_value in range(4):
        path = adapted.with_name(f"{pad_value}.onnx")
        adapt_file(adapted.with_name("source.onnx"), path, Overrides(pad_value=pad_value))
        put(path, repository)
    server = Hold(repository / "detector" / "1")
    assert prune(repository, 1) == [2, 3]
    assert numbers(repository) == [1, 4]
    server.release()
    assert prune(repository, 1) == [1]


@pytest.mark.parametrize("damage", ["cut", "deleted", "changed"])
@pytest.mark.parametrize("name", ["model.onnx", "model.py"])
def test_publishing_again_repairs_a_version(repository: Path, adapted: Path, name: str, damage: str) -> None:
    path = put(adapted, repository) / name
    whole = path.read_bytes()
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(whole[:-9] if damage == "cut" else whole[:-1] + b"x")
    assert publish(adapted, "openvino", repository, GROUP) == path.parent
    assert path.read_bytes() == whole
    assert numbers(repository) == [1]


def test_a_whole_model_is_not_written_again(repository: Path, adapted: Path) -> None:
    path = put(adapted, repository) / "model.onnx"
    before = path.stat()
    publish(adapted, "openvino", repository, GROUP)
    assert path.stat().st_ino == before.st_ino


@pytest.mark.parametrize("text", ["[]", "1", "null", '"a"', "{", '{"adapted": []}'])
def test_a_manifest_that_is_none_is_another_model(repository: Path, adapted: Path, text: str) -> None:
    (put(adapted, repository) / "manifest.json").write_text(text)
    assert publish(adapted, "openvino", repository, GROUP).name == "2"


def test_who_may_read_a_version_is_up_to_the_umask(repository: Path, adapted: Path) -> None:
    before = os.umask(0o027)
    try:
        directory = put(adapted, repository)
    finally:
        os.umask(before)
    assert directory.stat().st_mode & 0o777 == 0o750
    assert {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()} == dict.fromkeys(
        ("config.pbtxt", "manifest.json", "model.onnx", "model.py"), 0o640
    )
    assert (repository / "detector" / "config.pbtxt").stat().st_mode & 0o777 == 0o640


def test_a_version_is_on_the_disk_before_it_appears(
    repository: Path, adapted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: dict[str, bool] = {}
    fsync = os.fsync

    def watched(handle: int) -> None:
        synced[Path(f"/proc/self/fd/{handle}").readlink().name] = (repository / "detector" / "1").exists()
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    publish(adapted, "openvino", repository, GROUP)
    (aside,) = (name for name in synced if name.startswith(".publishing"))
    whole = dict.fromkeys(("config.pbtxt", "manifest.json", "model.onnx", "model.py", aside), False)
    assert synced == {**whole, "detector": True}


def test_an_unadapted_model_is_refused_with_the_way_out(repository: Path, adapted: Path) -> None:
    with pytest.raises(BuildError, match=r"not adapted.*triptych adapt"):
        put(adapted.with_name("source.onnx"), repository)


def test_into_service_and_out_of_it(repository: Path, adapted: Path) -> None:
    """The new version is served, and the oldest of more than two goes."""
    lines: list[str] = []
    for pad_value in range(3):
        path = adapted.with_name(f"{pad_value}.onnx")
        adapt_file(adapted.with_name("source.onnx"), path, Overrides(pad_value=pad_value))
        directory = publish(path, "openvino", repository, GROUP)
        put_into_service(directory, repository, keep=2, address=None, say=lines.append)
    assert served(repository) == [3]
    assert numbers(repository) == [2, 3]
    assert lines == [
        "publish: the next start serves version 1",
        "publish: the next start serves version 2",
        "publish: the next start serves version 3",
        "publish: removed the old version 1",
    ]
