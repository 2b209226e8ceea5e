"""Where a load runs: this machine, and the server with what it serves and has counted."""

from __future__ import annotations

import platform
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import grpc

from triptych.client import DetectionClient
from triptych.contract import DETECTOR
from triptych.machine import available_cores, cpu_model, nvidia_gpus
from triptych.measure.run_file import Environment, ServedDetector
from triptych.serving import repository
from triptych.wire.credentials import LOCAL, Credentials
from triptych.wire.model_control import ModelControl
from triptych.wire.statistics import Snapshot

PACKAGES = ("triptych", "locust", "grpcio", "tritonclient", "gevent", "numpy")
"""Those whose versions a run names."""

STATISTICS_TRIES = 20
"""How often the server's counters are read until they rest; other clients may use it meanwhile."""


def describe_machine(address: str) -> Environment:
    """Return the environment as far as this machine knows it; the server at `address` knows the rest."""
    return Environment(
        address,
        cpu_model(),
        available_cores(),
        [gpu.name for gpu in nvidia_gpus()],
        {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
    )


def settled_statistics(client: DetectionClient) -> Snapshot:
    """Return the server's counters at rest: it counts a request a moment after the client has its answer."""
    snapshot = client.statistics()
    for _ in range(STATISTICS_TRIES):
        time.sleep(0.1)
        before, snapshot = snapshot, client.statistics()
        if snapshot == before:
            break
    return snapshot


def with_server(machine: Environment, client: DetectionClient, model_repository: Path | None) -> Environment:
    """Add what the server says of itself to what `describe_machine` knows.

    Raises:
        RequestError: it does not answer.
    """
    return replace(
        machine,
        versions={**machine.versions, "triton": client.server_version()},
        detector=served_detector(client.address, model_repository, client.credentials),
    )


def served_detector(
    address: str, model_repository: Path | None, credentials: Credentials = LOCAL
) -> ServedDetector | None:
    """Return the detector as the server serves it; None if it does not say. Its repository has its manifest."""
    control = ModelControl(address, credentials=credentials)
    try:
        numbers = [int(version) for (model, version) in control.served() if model == DETECTOR.name]
        if not numbers:
            return None
        config = control.config(DETECTOR.name)
    except grpc.RpcError:
        return None
    finally:
        control.close()
    published = repository.versions(model_repository) if model_repository else []
    manifests = {entry.number: entry.manifest or None for entry in published}
    return ServedDetector(
        version=max(numbers),
        backend=config.backend or config.platform,
        instances=sum(group.count for group in config.instance_group),
        max_batch=config.max_batch_size,
        manifest=manifests.get(max(numbers)),
    )
