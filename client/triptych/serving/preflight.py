"""What the embedded server needs before it starts. Each thing that is missing is one sentence with its fix."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import os
import platform
import socket
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from triptych.contract import DETECTION, DETECTOR, MAX_BATCH, MODELS, POSTPROCESS, PREPROCESS, DetectorSpec
from triptych.errors import BuildError, ContractError, ServerStartError
from triptych.model_config import read_config
from triptych.serving.processes import STUB, holder_of_port
from triptych.serving.repository import check_files, versions

LOOPBACK = "127.0.0.1"
"""The embedded server listens only here unless told otherwise: its Triton has published vulnerabilities."""

INSTALL_HINT = "install it with `pip install nvidia-pytriton==0.7.0`"

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  (not a temporary file: Triton's models exchange tensors here)

MIN_SHARED_MEMORY_BYTES = 40_000_000
"""A batch of 16 images at 640x640 as it leaves preprocess, and again as it enters the detector."""

_INSTANCE_BYTES = 4_000_000
"""What each instance takes beside its pixels: measured 3.4 MB."""

_IMAGES_BYTES = 14_000_000
"""What an instance of preprocess takes for 16 encoded images of 0.5 MB: measured 14 MB."""


@dataclass(frozen=True)
class Ports:
    """The TCP ports of one server on this machine."""

    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002

    @classmethod
    def free(cls) -> Ports:
        """Return three ports that nobody holds at this moment."""
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
            for probe in sockets:
                probe.bind((LOOPBACK, 0))
            return cls(*(probe.getsockname()[1] for probe in sockets))


_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_TOP_PAD_": str(2**26)}
"""Keeps freed image buffers with the process: getting each from the kernel again costs a page fault every 4 KB."""


@dataclass(frozen=True)
class Installation:
    """Where the parts of Triton from pip are, for the Python that runs now."""

    binary: Path
    python_backend: Path
    stub: Path
    libraries: tuple[Path, ...]

    def environment(self) -> dict[str, str]:
        """Return the environment in which the server's models see the same packages as this process does.

        A model's process takes its packages from the first `python3` on PATH, and ignores PYTHONPATH.
        """
        environment = dict(os.environ)
        libraries = [str(path) for path in self.libraries]
        environment["LD_LIBRARY_PATH"] = _joined(libraries, environment.get("LD_LIBRARY_PATH"))
        environment["PATH"] = _joined([str(Path(sys.executable).parent)], environment.get("PATH"))
        return _ALLOCATOR | environment

    def link_backends(self, directory: Path) -> None:
        """Lay out a backend directory as Triton wants it: the Python backend with the stub of this Python."""
        target = directory / "python"
        target.mkdir(parents=True)
        for part in (*self.python_backend.iterdir(), self.stub):
            (target / part.name).symlink_to(part)


def find_installation() -> Installation:
    """Find Triton from pip and what it needs of this machine.

    Raises:
        ServerStartError: it does not run on this machine or this Python, or a part of it is missing.
    """
    machine = f"{platform.system()} {platform.machine()}"
    if machine != "Linux x86_64" or platform.libc_ver()[0] != "glibc":
        raise ServerStartError(
            f"Triton from pip runs on Linux x86_64 with glibc, but this is {machine}; "
            "run the models in a Triton container instead"
        )
    try:
        distribution = importlib.metadata.distribution("nvidia-pytriton")
    except importlib.metadata.PackageNotFoundError as error:
        raise ServerStartError(f"Triton itself is not installed; {INSTALL_HINT}") from error
    root = Path(str(distribution.locate_file("pytriton/tritonserver")))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = root / "python_backend_stubs" / version / STUB
    if not stub.is_file():
        versions = sorted((path.parent.name for path in stub.parent.parent.glob(f"*/{STUB}")), key=_version_key)
        raise ServerStartError(
            f"Triton from pip runs models on Python {', '.join(versions) or 'none'}, but this is {version}; "
            "make a virtual environment with one of those"
        )
    # A python3.X that was installed without the plain name.
    if not (Path(sys.executable).parent / "python3").exists():
        raise ServerStartError(
            f"there is no python3 next to {sys.executable}, by which Triton's models find their packages; "
            f"make one with `ln -s {sys.executable} {Path(sys.executable).parent / 'python3'}`"
        )
    return Installation(
        binary=root / "bin" / "tritonserver",
        python_backend=root / "backends" / "python",
        stub=stub,
        libraries=(Path(str(distribution.locate_file("nvidia_pytriton.libs"))), _libpython_directory(version)),
    )


def shared_memory_bytes(instances: Mapping[str, int], spec: DetectorSpec) -> int:
    """Return what the models need at most to exchange tensors: the largest batch in every instance at a time.

    Args:
        instances: by stage.
        spec: says how large the pixels are.
    """
    pixels = MAX_BATCH * spec.height * spec.width * 3
    per_stage = {
        PREPROCESS.name: pixels + _IMAGES_BYTES + _INSTANCE_BYTES,
        DETECTOR.name: pixels + _INSTANCE_BYTES,
        POSTPROCESS.name: _INSTANCE_BYTES,
    }
    return sum(count * per_stage[stage] for stage, count in instances.items())


def check_shared_memory(needed: int | None = None) -> None:
    """Make sure that the models have room to exchange tensors.

    Args:
        needed: how many bytes; None for `MIN_SHARED_MEMORY_BYTES`, where nothing is known of the models.

    Raises:
        ServerStartError: /dev/shm is missing, read-only or too small.
    """
    if not os.access(SHARED_MEMORY, os.W_OK):
        raise ServerStartError(
            f"{SHARED_MEMORY} cannot be written, and Triton's models exchange tensors there; mount it as a tmpfs"
        )
    status = os.statvfs(SHARED_MEMORY)
    free = status.f_bavail * status.f_frsize
    needed = needed or MIN_SHARED_MEMORY_BYTES
    if free < needed:
        raise ServerStartError(
            f"{SHARED_MEMORY} has {free / 1e6:.0f} MB left, and Triton's models need {needed / 1e6:.0f} MB for the "
            f"largest batches; free some, or give a container more with `--shm-size={1 + needed // 10**9}g`"
        )


def check_temporary_directory() -> None:
    """Make sure that there is a place for temporary files.

    Raises:
        ServerStartError: there is none.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise ServerStartError(
            "there is no directory for temporary files that can be written; mount a tmpfs at /tmp, or set TMPDIR"
        ) from error


def check_ports(ports: Ports, *, http: bool = True, host: str = LOOPBACK) -> None:
    """Make sure that the ports of an IP address are free; that of HTTP only if it is served.

    Raises:
        ServerStartError: another process holds one (the message says which, if that can be seen), two are the same, or
            the address is not of this machine.
    """
    by_kind: dict[str, int] = asdict(ports)
    if not http:
        del by_kind["http"]
    if len(set(by_kind.values())) < len(by_kind):
        raise ServerStartError(
            "the ports must differ, but got " + ", ".join(f"{kind} {port}" for kind, port in by_kind.items())
        )
    for kind, port in by_kind.items():
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            # As servers do, so that the closed connections of a server that ended a moment ago are no hindrance.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise ServerStartError(port_taken(ports, port)) from error
                if error.errno == errno.EADDRNOTAVAIL:
                    raise ServerStartError(
                        f"this machine has no address {host}; give one that it has with --host, or 0.0.0.0 for all"
                    ) from error
                raise ServerStartError(
                    f"port {port} cannot be opened ({error.strerror}); choose another with --{kind}-port"
                ) from error


def port_taken(ports: Ports, port: int) -> str:
    """Return the sentence for a port that another process holds."""
    kind = next((kind for kind, number in asdict(ports).items() if number == port), "grpc")
    holder = holder_of_port(port)
    return (
        f"port {port} is taken" + (f" by {holder}" if holder else "") + f"; choose another with --{kind}-port "
        "or let --free-ports choose"
    )


def check_repository(model_repository: Path) -> None:
    """Make sure that a model repository holds the models of the contract, in a form that Triton from pip serves.

    Raises:
        ServerStartError: it does not.
    """
    if not model_repository.is_dir():
        raise ServerStartError(
            f"there is no model repository at {model_repository.absolute()}; "
            "make one with `triptych init DIR`, or say where it is with --model-repository"
        )
    for model in MODELS:
        directory = model_repository / model.name
        versions = [path for path in directory.glob("[0-9]*") if path.is_dir() and path.name.isdigit()]
        if model is DETECTOR and not (versions and (directory / "config.pbtxt").is_file()):
            raise ServerStartError(
                f"{model_repository} has no published detector; publish one with `triptych build MODEL.onnx`"
            )
        try:
            config = read_config(directory)
        except ContractError as error:
            raise ServerStartError(str(error)) from error
        if model is DETECTION:
            continue
        if config.backend != "python":
            raise ServerStartError(
                f"{model.name} is made for Triton's {config.backend or config.platform or 'unnamed'} backend, and "
                "Triton from pip has only the Python backend; publish one for it with "
                "`triptych build MODEL.onnx --target openvino`, or run it in a Triton container"
            )
        # Triton waits for ever for a model whose file is missing.
        filename = config.default_model_filename or "model.py"
        for version in versions:
            if not (version / filename).is_file():
                raise ServerStartError(f"there is no {version / filename}; restore it, or remove {version}")


def check_served_files(model_repository: Path) -> None:
    """Make sure that the model that is served is the one that was published.

    Raises:
        ServerStartError: it is not.
    """
    served = next((version for version in versions(model_repository) if version.is_served), None)
    if served is not None:
        try:
            check_files(served.directory)
        except BuildError as error:
            raise ServerStartError(str(error)) from error


def _libpython_directory(version: str) -> Path:
    """Return the directory of the shared library that the stub of this Python links against."""
    name = f"libpython{version}.so.1.0"
    multiarch = sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu"
    library_directory = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib")
    candidates = (
        library_directory,
        library_directory / multiarch,
        Path(sys.base_prefix) / "lib",
        Path("/usr/lib") / multiarch,
        Path("/usr/lib64"),
        Path("/usr/local/lib"),
    )
    for directory in candidates:
        if (directory / name).is_file():
            return directory
    raise ServerStartError(
        f"Triton's models need {name}, which is neither in {library_directory} nor in the system's directories; "
        f"on Debian and Ubuntu: `apt install libpython{version}`; with pyenv: install Python with --enable-shared"
    )


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _joined(first: list[str], rest: str | None) -> str:
    return os.pathsep.join([*first, rest] if rest else first)
