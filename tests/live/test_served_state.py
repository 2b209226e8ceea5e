"""What is served stays what it is: while others publish, while processes die, and while clients stay connected."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from support.detectors import CLASSES, raw_model
from triptych import AsyncDetectionClient, DetectionClient
from triptych.model_config import detector_spec
from triptych.serving import Ports, TritonServer
from triptych.serving.repository import activate, versions
from triptych_build.adapt.adapter import Overrides, adapt_file
from triptych_build.publish.publish import publish, put_into_service
from triptych_build.publish.target import InstanceGroup

pytestmark = pytest.mark.triton

GROUP = InstanceGroup(count=1, threads=1)
IMAGE = cv2.imencode(".jpg", np.full((48, 96, 3), 128, np.uint8))[1].tobytes()


def names_with(label: int, name: str) -> tuple[str, ...]:
    """The names of a detector that always finds this class; no answer may have another one."""
    return tuple(name if number == label else f"not {name}" for number in range(CLASSES))


def one_object(directory: Path, label: int, overrides: Overrides) -> Path:
    """Write a detector that finds one object of this class in every image, with a score of 0.88."""
    path = raw_model(directory / f"source-{label}.onnx")
    model = onnx.load(path)
    bias = np.array([2, 2, 1, 1, *(2 if number == label else -9 for number in range(CLASSES))], np.float32)
    for tensor in model.graph.initializer:
        if tensor.name in ("weight", "bias"):
            value = np.zeros_like(onnx.numpy_helper.to_array(tensor)) if tensor.name == "weight" else bias
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    onnx.save(model, path)
    adapted = directory / f"{label}-{abs(hash(str(overrides)))}.onnx"
    adapt_file(path, adapted, overrides)
    return adapted


@pytest.fixture(scope="module")
def server(make_repository: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """Version 1 of the repository, served. The tests leave other versions behind, for the next start alone."""
    directory = tmp_path_factory.mktemp("served")
    source = one_object(directory, 0, Overrides(names=names_with(0, "one")))
    repository = make_repository(directory / "source-0.onnx", Overrides(names=names_with(0, "one")), GROUP)
    assert source.exists()
    with TritonServer(repository, ports=Ports.free(), log_path=directory / "log") as started:
        started_at[started.grpc_address] = repository
        yield started


started_at: dict[str, Path] = {}


@pytest.fixture
def repository(server: TritonServer) -> Path:
    return started_at[server.grpc_address]


def serving(server: TritonServer) -> list[str]:
    return [version for model, version in server.served() if model == "detector"]


def kill(server: TritonServer, model: str) -> None:
    """Kill a model's processes, and start them again as the supervisor does."""
    pids = server.model_processes()[model]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    while set(pids) & set(server.model_processes().get(model, [])):
        time.sleep(0.02)
    server.reload(model)


def test_stages_that_come_back_go_on_with_what_is_served(
    server: TritonServer, repository: Path, tmp_path: Path
) -> None:
    """Another version waits for the next start: with another letterbox, and a threshold that drops everything."""
    with DetectionClient(server.grpc_address) as client:
        before = client.detect(IMAGE)
        assert before.names == ("one",)
        other = one_object(
            tmp_path,
            1,
            Overrides(names=names_with(1, "two"), score_threshold=0.95, placement="stretch", pad_value=0),
        )
        number = int(publish(other, "openvino", repository, GROUP).name)
        activate(repository, number)
        for model in ("preprocess", "postprocess", "detector"):
            kill(server, model)
            after = client.detect(IMAGE)
            assert after.names == before.names, f"after {model} came back"
            np.testing.assert_array_equal(after.boxes_xyxy, before.boxes_xyxy)
    assert serving(server) == ["1"]
    assert detector_spec(server.control.config("detector")).class_names == names_with(0, "one")


def test_a_version_that_is_served_outlives_all_publications(
    server: TritonServer, repository: Path, tmp_path: Path
) -> None:
    for pad_value in range(3):
        model = one_object(tmp_path, 1, Overrides(pad_value=pad_value))
        directory = publish(model, "openvino", repository, GROUP)
        put_into_service(directory, repository, keep=1, address=None, say=lambda line: None)
    newest = int(directory.name)
    assert [version.number for version in versions(repository)] == [1, newest]
    kill(server, "detector")
    with DetectionClient(server.grpc_address) as client:
        assert client.detect(IMAGE).names == ("one",)


class Named:
    """Two clients of each kind that stay connected and ask without a pause, and what they got."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.answers: Counter[str] = Counter()
        self.latest: list[str] = [""] * 4
        self.stop = threading.Event()
        blocking = [threading.Thread(target=self.ask, args=(user,)) for user in (0, 1)]
        self.threads = [*blocking, *(threading.Thread(target=self.ask_async, args=(user,)) for user in (2, 3))]

    def take(self, user: int, answer: str) -> None:
        self.latest[user] = answer
        self.answers[answer] += 1

    def ask(self, user: int) -> None:
        with DetectionClient(self.address, retries=0) as client:
            while not self.stop.is_set():
                try:
                    self.take(user, ", ".join(client.detect(IMAGE).names))
                except Exception as error:  # noqa: PERF203
                    self.take(user, repr(error))

    def ask_async(self, user: int) -> None:
        async def run() -> None:
            async with AsyncDetectionClient(self.address, retries=0) as client:
                while not self.stop.is_set():
                    try:
                        self.take(user, ", ".join((await client.detect(IMAGE)).names))
                    except Exception as error:  # noqa: PERF203
                        self.take(user, repr(error))

        asyncio.run(run())

    def __enter__(self) -> Named:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def all_say(self, name: str, within_s: float = 5.0) -> bool:
        deadline = time.monotonic() + within_s
        while set(self.latest) != {name}:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True


def test_clients_that_stay_connected_get_the_names_of_the_version_that_answered(
    server: TritonServer, repository: Path, tmp_path: Path
) -> None:
    """Each version finds one class alone, so a wrong name shows at once. With requests flowing, none fails."""
    model = one_object(tmp_path, 1, Overrides(names=names_with(1, "two")))
    number = int(publish(model, "openvino", repository, GROUP).name)
    with Named(server.grpc_address) as named:
        assert named.all_say("one"), named.latest
        for version, name in ((number, "two"), (1, "one")):
            activate(repository, version, server.grpc_address)
            named.latest = [""] * 4
            assert named.all_say(name), named.latest
    assert set(named.answers) == {"one", "two"}, named.answers
    assert serving(server) == ["1"]
