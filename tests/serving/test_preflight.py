"""What is checked before the embedded server starts: each thing that is missing is a sentence with its fix."""

from __future__ import annotations

import importlib.metadata
import platform
import socket
import sys
import sysconfig
import types
from pathlib import Path
from types import SimpleNamespace

import pytest

from triptych.contract import DetectorSpec
from triptych.errors import ServerStartError
from triptych.serving import preflight
from triptych.serving.preflight import Ports
from triptych.serving.processes import holder_of_port


def test_finds_the_installation() -> None:
    installation = preflight.find_installation()
    assert installation.binary.is_file()
    assert installation.stub.parent.name == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert all(path.is_dir() for path in installation.libraries)


def test_the_models_python_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/cuda")
    environment = preflight.find_installation().environment()
    assert environment["PATH"] == f"{Path(sys.executable).parent}:/usr/bin"
    assert environment["LD_LIBRARY_PATH"].endswith(":/opt/cuda")


def test_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(ServerStartError, match=r"this is Linux aarch64; run the models in a Triton container"):
        preflight.find_installation()


def test_another_libc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    with pytest.raises(ServerStartError, match="with glibc"):
        preflight.find_installation()


def test_triton_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(ServerStartError, match=r"not installed; install it with `pip install nvidia-pytriton=="):
        preflight.find_installation()


def test_the_hint_names_the_release_that_triptych_asks_for() -> None:
    release = preflight.INSTALL_HINT.split()[-1].strip("`")
    assert release in (importlib.metadata.requires("triptych") or ())


def test_a_python_without_a_stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "STUB", "no_such_stub")
    with pytest.raises(ServerStartError, match="runs models on Python none"):
        preflight.find_installation()
    monkeypatch.undo()
    monkeypatch.setattr(sys, "version_info", types.SimpleNamespace(major=3, minor=99))
    with pytest.raises(ServerStartError, match=r"Python 3\.8, 3\.9, 3\.10, .*, but this is 3\.99"):
        preflight.find_installation()


def test_no_libpython(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: "/nowhere")
    monkeypatch.setattr(sys, "base_prefix", "/nowhere")
    monkeypatch.setattr(Path, "is_file", lambda path: "libpython" not in path.name)
    with pytest.raises(ServerStartError, match=r"need libpython3\.\d+\.so\.1\.0, .*`apt install libpython3\.\d+`"):
        preflight.find_installation()


def test_no_python3_next_to_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/bin/python")
    with pytest.raises(ServerStartError, match="`ln -s /nowhere/bin/python /nowhere/bin/python3`"):
        preflight.find_installation()


def test_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "SHARED_MEMORY", tmp_path / "missing")
    with pytest.raises(ServerStartError, match="cannot be written"):
        preflight.check_shared_memory()
    monkeypatch.setattr(preflight, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(preflight, "MIN_SHARED_MEMORY_BYTES", 10**18)
    with pytest.raises(ServerStartError, match=r"has \d+ MB left, .* `--shm-size=1000000001g`"):
        preflight.check_shared_memory()


def test_every_instance_needs_room_for_its_largest_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = DetectorSpec(640, 640, ("person",))
    needed = preflight.shared_memory_bytes({"preprocess": 1, "detector": 2, "postprocess": 1}, spec)
    assert needed == pytest.approx(85e6, rel=0.1)  # measured: 84.9 MB
    assert preflight.shared_memory_bytes({"preprocess": 1, "detector": 8, "postprocess": 1}, spec) > 2 * needed
    monkeypatch.setattr(preflight, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr("os.statvfs", lambda _path: SimpleNamespace(f_bavail=64_000, f_frsize=1000))
    with pytest.raises(ServerStartError, match=r"has 64 MB left, and .* need 8\d MB .*--shm-size=1g"):
        preflight.check_shared_memory(needed)
    preflight.check_shared_memory(60_000_000)


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        free = Ports.free()
        with pytest.raises(ServerStartError) as caught:
            preflight.check_ports(Ports(http=free.http, grpc=free.grpc, metrics=port))
        assert holder_of_port(port).endswith(")")
    assert str(caught.value).startswith(f"port {port} is taken by ")
    assert str(caught.value).endswith("; choose another with --metrics-port or let --free-ports choose")


def test_ports_that_are_the_same() -> None:
    with pytest.raises(ServerStartError, match="must differ, but got http 8000, grpc 8000, metrics 8002"):
        preflight.check_ports(Ports(grpc=8000))


def test_a_port_that_is_not_served_may_be_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        free = Ports.free()
        preflight.check_ports(Ports(http=holder.getsockname()[1], grpc=free.grpc, metrics=free.metrics), http=False)


def test_free_ports_differ_and_are_free() -> None:
    preflight.check_ports(Ports.free())


def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(ServerStartError, match=rf"no model repository at {tmp_path}/models; .*--model-repository"):
        preflight.check_repository(tmp_path / "models")


@pytest.mark.parametrize("missing", ["config.pbtxt", "1"])
def test_no_published_detector(repository: Path, missing: str) -> None:
    path = repository / "detector" / missing
    path.rename(path.with_name("README.md"))
    with pytest.raises(ServerStartError, match=r"has no published detector; publish one with `triptych build "):
        preflight.check_repository(repository)


def test_a_missing_model(repository: Path) -> None:
    (repository / "postprocess" / "config.pbtxt").unlink()
    with pytest.raises(ServerStartError, match=r"there is no .*postprocess/config\.pbtxt; restore it"):
        preflight.check_repository(repository)


def test_a_config_that_does_not_parse(repository: Path) -> None:
    (repository / "preprocess" / "config.pbtxt").write_text("nonsense {")
    with pytest.raises(ServerStartError, match=r"preprocess/config\.pbtxt is not a model configuration"):
        preflight.check_repository(repository)


@pytest.mark.parametrize("config", ['platform: "tensorrt_plan"', 'backend: "tensorrt_plan"'])
def test_a_detector_for_another_backend(repository: Path, config: str) -> None:
    (repository / "detector" / "config.pbtxt").write_text(config)
    with pytest.raises(ServerStartError, match=r"detector is made for Triton's tensorrt_plan backend, .*openvino"):
        preflight.check_repository(repository)


def test_a_version_without_its_model(repository: Path) -> None:
    (repository / "preprocess" / "1" / "model.py").unlink()
    with pytest.raises(ServerStartError, match=r"there is no .*preprocess/1/model\.py; restore it, or remove"):
        preflight.check_repository(repository)
