"""What a server serves and has counted, read before and after a load."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import grpc

from triptych.client import DetectionClient
from triptych.contract import DETECTOR
from triptych.measure.run_file import Environment, ServedDetector
from triptych.serving import repository
from triptych.wire.model_control import ModelControl
from triptych.wire.statistics import Snapshot

STATISTICS_TRIES = 20
"""How often the server's counters are read until they rest; others may use it all the while."""


def settled_statistics(client: DetectionClient) -> Snapshot:
    """The server's counters at rest: it counts a request a moment after the client has its answer."""
    snapshot = client.statistics()
    for _ in range(STATISTICS_TRIES):
        time.sleep(0.1)
        before, snapshot = snapshot, client.statistics()
        if snapshot == before:
            break
    return snapshot


def with_server(machine: Environment, client: DetectionClient, model_repository: Path | None) -> Environment:
    """What `run_file.describe_machine` knows, and what the server says of itself.

    Raises:
        RequestError: it does not answer.
    """
    return replace(
        machine,
        versions={**machine.versions, "triton": client.server_version()},
        detector=served_detector(client.address, model_repository),
    )


def served_detector(address: str, model_repository: Path | None) -> ServedDetector | None:
    """The detector as the server serves it, with its manifest if its repository is given; None if it does not say."""
    control = ModelControl(address)
    try:
        numbers = [int(version) for (model, version) in control.served() if model == DETECTOR.name]
        if not numbers:
            return None
        config = control.config(DETECTOR.name)
    except grpc.RpcError:
        return None
    finally:
        control.close()
    found = repository.versions(model_repository) if model_repository else []
    manifests = {version.number: version.manifest or None for version in found}
    return ServedDetector(
        version=max(numbers),
        backend=config.backend or config.platform,
        instances=sum(group.count for group in config.instance_group),
        max_batch=config.max_batch_size,
        manifest=manifests.get(max(numbers)),
    )
