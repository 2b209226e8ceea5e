"""Plans of one model for several kinds of GPU as one version, and what the gate said of each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.plans import built_by, plan_file
from triptych.files import sha256
from triptych.model_config import read_config
from triptych.serving.repository import activate, versions
from triptych_build.publish.publish import publish
from triptych_build.publish.target import InstanceGroup, TargetName
from triptych_build.tensorrt.options import Profile
from triptych_build.tensorrt.plan import Engine

H200 = built_by("tensorrt")
L4 = replace(H200, compute_capabilities=("8.9",), gpu="NVIDIA L4")
PASSED = {"passed": True, "gpu": {"name": "NVIDIA H200"}}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "repository"
    path.mkdir()
    return path


def put(
    repository: Path,
    engine: Engine,
    content: bytes = b"plan",
    target: TargetName = "tensorrt",
    verification: dict[str, Any] | None = None,
) -> Path:
    built = repository.with_name("built")
    built.mkdir(exist_ok=True)
    path = plan_file(built, engine)
    path.write_bytes(content)
    return publish(path, target, repository, InstanceGroup(1), verification=verification)


def manifest(directory: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((directory / "manifest.json").read_text())
    return read


def test_a_plan_for_another_gpu_joins_the_version_of_the_same_model(repository: Path) -> None:
    first = put(repository, H200, b"for 9.0", verification=PASSED)
    assert put(repository, L4, b"for 8.9", verification={"passed": False}) == first
    assert (first / "model.plan").read_bytes() == b"for 9.0"
    assert (first / "model.plan.8.9").read_bytes() == b"for 8.9"
    activate(repository, 1)
    names = read_config(repository / "detector").cc_model_filenames
    assert dict(names) == {"9.0": "model.plan", "8.9": "model.plan.8.9"}
    whole = manifest(first)
    assert whole["engine"]["gpu"] == "NVIDIA H200"
    assert whole["verification"] == PASSED
    other = whole["plans"]["8.9"]
    assert (other["engine"]["gpu"], other["verification"]) == ("NVIDIA L4", {"passed": False})
    assert other["model_sha256"] == sha256(first / "model.plan.8.9")


def test_a_plan_alone_is_named_by_nothing_but_its_usual_name(repository: Path) -> None:
    assert not read_config(put(repository, H200)).cc_model_filenames


@pytest.mark.parametrize("content", [b"for 9.0", b"for 8.9"])
def test_publishing_a_plan_again_keeps_the_others_and_every_verdict(repository: Path, content: bytes) -> None:
    first = put(repository, H200, b"for 9.0", verification=PASSED)
    put(repository, L4, b"for 8.9", verification=PASSED)
    before = manifest(first)
    (first / "model.plan.8.9").write_bytes(b"cut")
    assert put(repository, H200 if content == b"for 9.0" else L4, content) == first
    after = manifest(first)
    assert after["verification"] == after["plans"]["8.9"]["verification"] == PASSED
    assert after["plans"]["8.9"]["model_sha256"] == before["plans"]["8.9"]["model_sha256"]
    if content == b"for 8.9":
        assert (first / "model.plan.8.9").read_bytes() == content


def test_the_same_build_twice_gives_another_plan_which_has_no_verdict(repository: Path) -> None:
    put(repository, H200, b"once", verification=PASSED)
    second = put(repository, H200, b"twice")
    assert second.name == "2"
    assert manifest(second)["verification"] is None


def test_a_plan_joins_the_newest_version_of_its_model(repository: Path) -> None:
    put(repository, H200, b"driver 570")
    put(repository, L4, b"for 8.9")
    assert put(repository, H200, b"driver 580").name == "2"
    assert put(repository, L4, b"for 8.9").name == "2"
    assert [sorted(version.manifest.get("plans", {})) for version in versions(repository)] == [["8.9"], ["8.9"]]


@pytest.mark.parametrize(
    ("engine", "target"),
    [
        (replace(L4, version="10.13.0"), "tensorrt"),
        (replace(L4, precision="fp32"), "tensorrt"),
        (replace(L4, profiles=(Profile(1, 4, 16),)), "tensorrt"),
        (replace(L4, hardware_compatibility="ampere_plus"), "tensorrt"),
        (replace(L4, compute_capabilities=()), "tensorrt"),
        (L4, "tensorrt-python"),
    ],
)
def test_what_does_not_belong_together_is_a_version_of_its_own(
    repository: Path, engine: Engine, target: TargetName
) -> None:
    put(repository, H200, b"for 9.0", target)
    assert put(repository, engine, b"another", target).name == "2"
