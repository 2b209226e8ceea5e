"""The run file: one load and all that was seen of it, as JSON.

`run_file.schema.json`, beside this module, documents every field. A reader refuses a version that it does not know.
"""

from __future__ import annotations

import hashlib
import json
import platform
import types
import typing
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from triptych.errors import ContractError
from triptych.files import atomic_write
from triptych.machine import available_cores, cpu_model, nvidia_gpus
from triptych.measure.attribution import Attribution
from triptych.measure.histogram import Histogram
from triptych.measure.intervals import Interval
from triptych.wire.statistics import Counters

VERSION = 2

Loop = Literal["closed", "constant", "poisson", "camera", "video"]

PACKAGES = ("triptych", "locust", "grpcio", "tritonclient", "gevent", "numpy")


@dataclass(frozen=True)
class ImageSet:
    """The images that were sent, in turn.

    Attributes:
        count: how many.
        total_bytes: of all together, encoded.
        sha256: of their own hashes, one after the other, in the order in which they were sent.
    """

    count: int
    total_bytes: int
    sha256: str

    @classmethod
    def of(cls, images: Sequence[bytes]) -> ImageSet:
        """Describe encoded images."""
        digest = hashlib.sha256(b"".join(hashlib.sha256(image).digest() for image in images))
        return cls(len(images), sum(map(len, images)), digest.hexdigest())


@dataclass(frozen=True)
class Workload:
    """What was asked of the server.

    Attributes:
        loop: `closed`: each user waits for its answer; `constant` and `poisson`: requests come at a rate, whatever the
            answers do; `camera`: each user sends frames at a rate, and drops those that are due while it waits. In
            these latency counts from when a request was due. `video`: the frames of `triptych track`.
        users: of the closed loop, or cameras; of a video, frames in flight; 0 in the open loops.
        rate_per_s: requests a second of the open loops, or of each camera; else None.
        shape: how users or rate change over the time, as `triptych_loadtest.shapes` has them.
        batch: images in a request.
        sizes: what images were scaled to, such as "1920x1080"; empty if they were sent as they are.
        processes: load generators that shared the work.
        warmup_s: how long the load went on before anything counted.
        duration_s: how long it was measured.
        images: what was sent.
    """

    loop: Loop
    users: int
    rate_per_s: float | None
    shape: str
    batch: int
    sizes: list[str]
    processes: int
    warmup_s: float
    duration_s: float
    images: ImageSet


@dataclass(frozen=True)
class ServedDetector:
    """The detector as the server serves it.

    Attributes:
        version: its number in the model repository.
        backend: Triton's backend, such as `python` or `tensorrt`.
        instances: how many.
        max_batch: images that one execution may take.
        manifest: what its publication wrote down; None where the model repository is not at hand.
    """

    version: int
    backend: str
    instances: int
    max_batch: int
    manifest: dict[str, Any] | None = None


@dataclass(frozen=True)
class Environment:
    """Where it ran. CPU, cores, GPUs and packages are those of the load generator's machine.

    Attributes:
        address: the server's.
        cpu: the processor's name.
        cores: cores that the load generator may use.
        gpus: names, as nvidia-smi has them; empty where there are none.
        versions: by package; `python` and `triton` (the server's) besides.
        detector: None where the server does not say.
    """

    address: str
    cpu: str
    cores: int
    gpus: list[str]
    versions: dict[str, str]
    detector: ServedDetector | None = None


@dataclass(frozen=True)
class Failure:
    """Requests that failed in one way.

    Attributes:
        count: how many.
        example: the message of one of them.
    """

    count: int
    example: str


@dataclass(frozen=True)
class ClientSide:
    """What the clients saw.

    Attributes:
        latencies: of the requests that succeeded.
        by_request: the same by the request's name, where there are several.
        failures: the others, by the name of the error's class.
        seconds: from the first request to the last answer.
        cpu_s: CPU time of the processes that sent the requests, together.
        busiest: the share of one core that the busiest of them used, 0..1 and above.
    """

    latencies: Histogram
    by_request: dict[str, Histogram]
    failures: dict[str, Failure]
    seconds: float
    cpu_s: float
    busiest: float

    @property
    def failed(self) -> int:
        """How many requests failed."""
        return sum(failure.count for failure in self.failures.values())

    @property
    def rate_per_s(self) -> float:
        """Requests that succeeded, a second."""
        return self.latencies.count / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Run:
    """One load.

    Attributes:
        started: when the measurement began, UTC, ISO 8601.
        workload: what was asked.
        environment: where.
        client: what the clients saw.
        server: the server's counters of each model, differenced over exactly the measured time.
        attribution: where the time went.
        intervals: the measured time in equal parts.
        command: what was typed.
        version: of this format.
    """

    started: str
    workload: Workload
    environment: Environment
    client: ClientSide
    server: dict[str, Counters]
    attribution: Attribution
    intervals: list[Interval]
    command: list[str]
    version: int = field(default=VERSION)


def write(path: Path, run: Run) -> None:
    """Write a run; the file is whole or not there.

    Raises:
        ContractError: it cannot be written.
    """
    text = json.dumps(to_json(run), indent=1)
    try:
        with atomic_write(path) as aside:
            aside.write_text(text + "\n")
    except OSError as error:
        raise ContractError(f"the run cannot be written to {path} ({error.strerror}); choose another --out") from error


def read(path: Path) -> Run:
    """Read a run.

    Raises:
        ContractError: there is no such file, it is no run, or one of another version.
    """
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ContractError(f"{path} is not a run that can be read: {error}") from error
    found = data.get("version") if isinstance(data, dict) else None
    if found != VERSION:
        raise ContractError(f"{path} must be a run of version {VERSION}, but its version is {found!r}")
    try:
        run: Run = from_json(Run, data)
    except (KeyError, TypeError, ValueError) as error:
        raise ContractError(f"{path} is not a whole run: {type(error).__name__} {error}") from error
    return run


def to_json(value: Any) -> Any:
    """Dataclasses as objects, and all that is in them, for `json.dumps`."""
    if isinstance(value, Histogram):
        return value.to_json()
    if is_dataclass(value):
        return {each.name: to_json(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


def from_json(kind: Any, data: Any) -> Any:
    """What `to_json` took apart, by the annotations of the dataclass `kind`.

    Raises:
        KeyError, TypeError, ValueError: it is no such thing.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Histogram:
        return Histogram.from_json(data)
    if isinstance(kind, type) and is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{each.name: from_json(hints[each.name], data[each.name]) for each in fields(kind)})
    if origin in (types.UnionType, typing.Union):
        return None if data is None else from_json(arguments[0], data)
    if origin is Counter:
        return Counter({int(key): count for key, count in data.items()})
    if origin is dict:
        return {key: from_json(arguments[1], item) for key, item in data.items()}
    if origin is list:
        return [from_json(arguments[0], item) for item in data]
    return data


def describe_machine(address: str) -> Environment:
    """The environment as far as this machine knows it; the server at `address` knows the rest.

    Starts a process, which gRPC and gevent together do not bear once there is a connection: call it before.
    """
    versions = {package: found for package in PACKAGES if (found := _installed(package))}
    return Environment(
        address,
        cpu_model(),
        available_cores(),
        [gpu.name for gpu in nvidia_gpus()],
        {"python": platform.python_version(), **versions},
    )


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
