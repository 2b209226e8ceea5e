"""Load the models of a Triton server, and ask how it serves them."""

from __future__ import annotations

import time

import grpc
from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

CALL_TIMEOUT_S = 5.0
"""The deadline of calls that load nothing."""

_OPTIONS = (
    # The server is on this machine: never use a proxy, and connect again soon if the server does not listen yet.
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.use_local_subchannel_pool", 1),
)


class ModelControl:
    """The control interface of one server. A call that fails raises `grpc.RpcError`, except `is_server`."""

    def __init__(self, address: str) -> None:
        """Connect to the server at `address`, host:port, as soon as there is one."""
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
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
        """Load a model and the models it is composed of. A `config` replaces its `config.pbtxt`."""
        request = service_pb2.RepositoryModelLoadRequest(model_name=model)
        if config is not None:
            request.parameters["config"].string_param = json_format.MessageToJson(
                config, preserving_proto_field_name=True
            )
        self._service.RepositoryModelLoad(request, timeout=timeout_s)

    def config(self, model: str, version: str = "") -> model_config_pb2.ModelConfig:
        """Return the configuration that a model is served with, including all defaults."""
        request = service_pb2.ModelConfigRequest(name=model, version=version)
        return self._service.ModelConfig(request, timeout=CALL_TIMEOUT_S).config

    def set_instances(self, model: str, count: int, timeout_s: float) -> None:
        """Give a model that many instances. The ones it has go on working meanwhile."""
        config = self.config(model)
        if config.instance_group[0].count != count:
            config.instance_group[0].count = count
            self.load(model, timeout_s, config)

    def restart(self, model: str, timeout_s: float) -> None:
        """Restart the processes of a model, with the configuration that it is served with."""
        config = self.config(model)
        # Triton does nothing if the configuration is the same as before.
        config.parameters["generation"].string_value = str(time.time_ns())
        self.load(model, timeout_s, config)

    def served(self) -> dict[tuple[str, str], int]:
        """Return how many processes each (model, version) that is ready should have; 0 for an ensemble."""
        request = service_pb2.RepositoryIndexRequest(ready=True)
        counts = {}
        for entry in self._service.RepositoryIndex(request, timeout=CALL_TIMEOUT_S).models:
            config = self.config(entry.name, entry.version)
            groups = config.instance_group if config.backend == "python" else ()
            counts[entry.name, entry.version] = sum(group.count * max(1, len(group.gpus)) for group in groups)
        return counts
