"""Load the models of a Triton server, and ask how it serves them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

import grpc
from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from triptych.contract import DETECTOR, POSTPROCESS, PREPROCESS
from triptych.model_config import tell_stage
from triptych.wire.access import key_headers
from triptych.wire.channel import open_channel
from triptych.wire.credentials import LOCAL, Credentials
from triptych.wire.statistics import Snapshot, parse_statistics

CALL_TIMEOUT_S = 5.0
"""The deadline of calls that load nothing."""

_OPTIONS = (
    # Connect again soon if the server does not listen yet.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.use_local_subchannel_pool", 1),
)


class ModelControl:
    """The control interface of one server. A call that fails raises `grpc.RpcError`, except `is_server`.

    Calls that change anything show the server's key.
    """

    def __init__(self, address: str, key: str = "", credentials: Credentials = LOCAL) -> None:
        """Connect to the server at `address`, host:port, as soon as there is one.

        Args:
            address: host:port.
            key: the server's key, for the one who made it; all others leave it to the credentials.
            credentials: how to connect, and where the server's key is.
        """
        self._address, self._key, self._credentials = address, key, credentials
        self._channel = open_channel(grpc, address, credentials, _OPTIONS)
        self._service = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def is_server(self, server_id: str) -> bool:
        """Return whether a server answers and has that name."""
        try:
            metadata = self._service.ServerMetadata(service_pb2.ServerMetadataRequest(), timeout=1)
        except grpc.RpcError:
            return False
        return bool(metadata.name == server_id)

    def load(self, model: str, timeout_s: float, config: model_config_pb2.ModelConfig | None = None) -> None:
        """Load a model and the models it is composed of. A `config` replaces its `config.pbtxt`.

        A stage gets the configuration that the detector is served with along with its own.
        """
        request = service_pb2.RepositoryModelLoadRequest(model_name=model)
        if config is not None:
            if config.name in (PREPROCESS.name, POSTPROCESS.name):
                with contextlib.suppress(grpc.RpcError):  # without a detector the stage keeps what it has
                    tell_stage(config, self.config(DETECTOR.name))
            request.parameters["config"].string_param = json_format.MessageToJson(
                config, preserving_proto_field_name=True
            )
        self._service.RepositoryModelLoad(request, timeout=timeout_s, metadata=self._headers())

    def unload(self, model: str, timeout_s: float) -> None:
        """Take no more requests for a model, and unload it when those that it has are answered; its stages stay."""
        request = service_pb2.RepositoryModelUnloadRequest(model_name=model)
        self._service.RepositoryModelUnload(request, timeout=timeout_s, metadata=self._headers())

    def config(self, model: str, version: str = "") -> model_config_pb2.ModelConfig:
        """Return the configuration that a model is served with, including all defaults."""
        request = service_pb2.ModelConfigRequest(name=model, version=version)
        return self._service.ModelConfig(request, timeout=CALL_TIMEOUT_S).config

    def change(self, model: str, edit: Callable[[model_config_pb2.ModelConfig], None], timeout_s: float) -> None:
        """Load a model with an edited configuration, if it is another one. Instances go on working meanwhile."""
        before, config = self.config(model), self.config(model)
        edit(config)
        if config != before:
            self.load(model, timeout_s, config)

    def restart(self, model: str, timeout_s: float) -> None:
        """Restart the processes of a model, with the configuration that it is served with."""
        config = self.config(model)
        # Triton does nothing if the configuration is the same as before.
        config.parameters["generation"].string_value = str(time.time_ns())
        self.load(model, timeout_s, config)

    def ask_live(self, timeout_s: float) -> grpc.Future:
        """Ask whether the server answers; the answer comes later."""
        return self._service.ServerLive.future(service_pb2.ServerLiveRequest(), timeout=timeout_s)

    def ask(self, request: service_pb2.ModelInferRequest, timeout_s: float) -> grpc.Future:
        """Send a request to a model; the answer comes later."""
        return self._service.ModelInfer.future(request, timeout=timeout_s)

    def unloaded(self) -> list[str]:
        """Return the models that are not ready though their files are there; none while any model loads."""
        entries = self._index()
        if any(entry.state == "LOADING" for entry in entries):
            return []  # an ensemble is not ready while its stages load
        ready = {entry.name for entry in entries if entry.state == "READY"}
        return sorted({entry.name for entry in entries} - ready)

    def has_work(self, model: str) -> bool:
        """Return whether a model that was unloaded still answers requests."""
        return any(entry.name == model and entry.state == "UNLOADING" for entry in self._index())

    def statistics(self, timeout_s: float = CALL_TIMEOUT_S) -> Snapshot:
        """Return the counters of the models that are ready, by name."""
        return parse_statistics(self._statistics(timeout_s))

    def served(self) -> dict[tuple[str, str], int]:
        """Return how many processes each (model, version) that is ready should have; 0 for an ensemble."""
        return {served: processes_of(config) for served, config in self.configs().items()}

    def configs(self) -> dict[tuple[str, str], model_config_pb2.ModelConfig]:
        """Return what each (model, version) that is ready is served with."""
        # The index of the repository would need the server's key, and says no more.
        ready = [(entry.name, entry.version) for entry in self._statistics().model_stats]
        return {(model, version): self.config(model, version) for model, version in ready}

    def _index(self) -> Sequence[service_pb2.RepositoryIndexResponse.ModelIndex]:
        request = service_pb2.RepositoryIndexRequest()
        response = self._service.RepositoryIndex(request, timeout=CALL_TIMEOUT_S, metadata=self._headers())
        models: Sequence[service_pb2.RepositoryIndexResponse.ModelIndex] = response.models
        return models

    def _headers(self) -> tuple[tuple[str, str], ...]:
        return key_headers(self._address, self._key) if self._key else self._credentials.headers(self._address)

    def _statistics(self, timeout_s: float = CALL_TIMEOUT_S) -> service_pb2.ModelStatisticsResponse:
        return self._service.ModelStatistics(service_pb2.ModelStatisticsRequest(), timeout=timeout_s)


def processes_of(config: model_config_pb2.ModelConfig) -> int:
    """Return how many processes a model that is served so has; 0 for an ensemble."""
    groups = config.instance_group if config.backend == "python" else ()
    return sum(group.count * max(1, len(group.gpus)) for group in groups)
