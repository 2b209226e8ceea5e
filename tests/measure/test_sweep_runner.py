"""The settings of a running detector, changed and put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2, service_pb2

from support.fake_server import LOST, FakeServer, Fault
from triptych.errors import ContractError, ServerFault
from triptych.measure.sweep import Setting
from triptych.measure.sweep_runner import LoadTests, changed_settings


class ControlledServer(FakeServer):
    """It takes configurations, as a Triton with explicit model control does, but for what `faults` says in turn."""

    def __init__(self, *faults: Fault | None) -> None:
        super().__init__()
        self.faults = list(faults)
        self.loaded = [model_config_pb2.ModelConfig(name="detector", instance_group=[{"count": 3}])]

    def ModelConfig(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        response = service_pb2.ModelConfigResponse()
        response.config.CopyFrom(self.loaded[-1])
        return response

    def RepositoryModelLoad(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        fault = self.faults.pop(0) if self.faults else None
        if fault:
            context.abort(fault.code, fault.details)
        text = request.parameters["config"].string_param
        self.loaded.append(json_format.Parse(text, model_config_pb2.ModelConfig()))
        return service_pb2.RepositoryModelLoadResponse()


StartServer = Callable[..., ControlledServer]


@pytest.fixture
def controlled() -> Iterator[StartServer]:
    """Start such a server with these faults."""
    with ExitStack() as stack:

        def begin(*faults: Fault | None) -> ControlledServer:
            fake = ControlledServer(*faults)
            fake.start()
            stack.callback(fake.stop)
            return fake

        yield begin


def load_tests_of(address: str) -> LoadTests:
    return LoadTests(address, Path(), 1, 1, 1, Path())


@pytest.mark.parametrize("end", [None, KeyboardInterrupt(), ContractError()])
def test_the_server_has_its_own_settings_back_however_it_ends(
    controlled: StartServer, end: BaseException | None
) -> None:
    server = controlled()
    load_tests = load_tests_of(server.address)
    with suppress(KeyboardInterrupt, ContractError), changed_settings(load_tests) as change:
        change(Setting())
        assert len(server.loaded) == 1, "nothing to change"
        change(Setting(1))
        change(Setting(2, 100))
        if end:
            raise end
    assert [config.instance_group[0].count for config in server.loaded] == [3, 1, 2, 3]
    assert server.loaded[-1] == server.loaded[0] == load_tests.original


def change_one(server: ControlledServer) -> None:
    with changed_settings(load_tests_of(server.address)) as change:
        change(Setting(1))


NO_MEMORY = Fault(grpc.StatusCode.INTERNAL, "no memory")


def test_a_server_that_lets_nothing_be_changed_is_one_sentence(controlled: StartServer) -> None:
    # as Triton says it
    refusal = Fault(grpc.StatusCode.UNAVAILABLE, "explicit model load / unload is not allowed if polling is enabled")
    with pytest.raises(ContractError, match="start it with `triptych serve` or with --model-control-mode=explicit"):
        change_one(controlled(refusal, refusal))


def test_a_setting_that_cannot_be_loaded_is_the_server_s_sentence_and_undone(controlled: StartServer) -> None:
    server = controlled(NO_MEMORY)
    with pytest.raises(ServerFault, match="no memory"):
        change_one(server)
    assert server.loaded == [server.loaded[0]] * 2


def test_settings_that_are_not_taken_back_are_reported_unless_the_server_is_gone(controlled: StartServer) -> None:
    with pytest.raises(ContractError, match=r"does not take its own settings back \(no memory\); restart the server"):
        change_one(controlled(None, NO_MEMORY))
    change_one(controlled(None, LOST))
