"""Facts that are gathered on this machine, from programs that stand for those that it does not have."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace

import pytest

from support.doctor_facts import L4
from triptych.errors import BuildError, ContractError, ServerStartError, ServerUnavailable
from triptych.machine import Gpu
from triptych.serving import preflight
from triptych.serving.doctor import gathering


def test_gpus_come_from_the_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gathering, "JETSON_RELEASE", tmp_path / "none")
    monkeypatch.setattr(gathering, "nvidia_gpus", lambda: (L4,))
    assert gathering.visible_gpus() == (L4,)
    monkeypatch.setattr(gathering, "nvidia_gpus", tuple)
    assert gathering.visible_gpus() == ()


def test_a_jetson_says_what_it_is_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gathering, "nvidia_gpus", tuple)
    release = tmp_path / "nv_tegra_release"
    release.write_text("# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic\n# more\n")
    monkeypatch.setattr(gathering, "JETSON_RELEASE", release)
    assert gathering.visible_gpus() == (Gpu("Jetson, R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic"),)


def test_a_container_of_triton_is_recognised() -> None:
    inside = gathering.inspect_machine({"TRITON_SERVER_VERSION": "2.70.0", "NVIDIA_TRITON_SERVER_VERSION": "26.06"})
    assert (inside.name, inside.triton, inside.tensorrt) == ("this Triton container 26.06", "2.70.0", "11.0")
    assert not inside.is_pip
    assert gathering.inspect_machine({"NVIDIA_TRITON_SERVER_VERSION": "26.05"}).tensorrt == "10.16.1.11"
    flavour = {"NVIDIA_TRITON_SERVER_VERSION": "26.07", "TRT_VERSION": "10.14.1.48+cuda13.0"}
    assert gathering.inspect_machine(flavour).tensorrt == "10.14.1.48", "the image itself is asked first"
    assert gathering.inspect_machine({}).is_pip


def test_the_runtimes_that_are_installed() -> None:
    packages = gathering.installed_packages()
    assert packages["openvino"] == version("openvino")
    try:
        version("tensorrt")
    except PackageNotFoundError:
        assert "tensorrt" not in packages


def test_another_python3_on_path_is_a_warning(tmp_path: Path) -> None:
    other = tmp_path / "python3"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    (warning,) = gathering.inspect_machine({"PATH": str(tmp_path)}).warnings
    assert f"the first python3 on PATH is {other}" in warning
    assert gathering.inspect_machine({"PATH": str(Path(sys.executable).parent)}).warnings == ()


def test_numpy_that_pytriton_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "version", {"numpy": "2.1.0", "nvidia-pytriton": "0.7.0"}.__getitem__)
    assert any("numpy 2.1.0 is installed" in error for error in gathering._pip_errors(None))


def test_a_python_that_pytriton_has_no_stub_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise ServerStartError("Triton from pip runs models on Python 3.10, 3.11, but this is 3.13")

    monkeypatch.setattr(preflight, "find_installation", refuse)
    assert "but this is 3.13" in gathering.inspect_machine({}).errors[0]


def test_room_for_what_the_models_exchange(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(preflight, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr("os.statvfs", lambda _path: SimpleNamespace(f_bavail=64_000, f_frsize=1000))
    assert not [error for error in gathering.inspect_machine({}, 60_000_000).errors if "64 MB" in error]
    assert [error for error in gathering.inspect_machine({}, 85_000_000).errors if "64 MB left" in error]


def test_no_repository_and_no_server_are_one_sentence(tmp_path: Path, nobody: str) -> None:
    with pytest.raises(BuildError, match="has no published detector"):
        gathering.read_versions(tmp_path)
    with pytest.raises(ServerUnavailable, match="no server answers at"):
        gathering.ask_server(nobody)
    with pytest.raises(ContractError, match="must be host:port"):
        gathering.ask_server("http://127.0.0.1:8000")


def test_a_version_that_is_served_is_judged_by_the_file_that_it_is_served_with(tmp_path: Path) -> None:
    detector = tmp_path / "detector"
    for number, batch in (("1", 1), ("2", 2)):
        (detector / number).mkdir(parents=True)
        (detector / number / "config.pbtxt").write_text(f"max_batch_size: {batch}")
    (detector / "config.pbtxt").write_text("max_batch_size: 16 version_policy { specific { versions: 2 } }")
    sizes = [version.config.max_batch_size for version in gathering.read_versions(tmp_path) if version.config]
    assert sizes == [1, 16]
