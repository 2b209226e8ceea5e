"""Send what is damaged to a real server, and see that it lives, answers in time, and answers the good images."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import grpc
import numpy as np
from tritonclient.grpc import service_pb2_grpc

from fuzz.files import mutate, seeds
from fuzz.requests import malformed
from support import ROOT
from support.detectors import raw_model
from support.images import JPEG
from triptych import DetectionClient, Detections
from triptych.errors import TriptychError
from triptych.serving.processes import ModelProcess
from triptych.serving.repository import activate
from triptych.serving.server import Ports, TritonServer
from triptych_build.adapt.adapter import Overrides, adapt_file
from triptych_build.publish import publish
from triptych_build.publish.target import InstanceGroup

BATCH = 16
ANSWER_S = 40.0
"""The images of a request may take 8 s of CPU. Whatever takes so much longer hangs."""


@dataclass
class Result:
    """What a campaign saw.

    Attributes:
        files: how many damaged files were sent, by format.
        answers: how they were answered: "decoded", "refused", or the sentence of a limit or of a decoder that died.
        requests: how malformed requests were answered, by status.
        slowest_s: the longest wait for an answer to 15 damaged files and a good one.
        failures: what must not be: a lost good image, no answer in time, a model's process that died.
    """

    files: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    failures: list[str] = field(default_factory=list)


def small_repository(directory: Path, instances: int = 1) -> Path:
    """Publish a detector that takes next to no time, so that a campaign tests what is around it."""
    repository = directory / "model_repository"
    shutil.copytree(ROOT / "model_repository", repository, ignore=shutil.ignore_patterns("detector", "__pycache__"))
    model = raw_model(directory / "source.onnx")
    adapt_file(model, directory / "adapted.onnx", Overrides(names=tuple(f"thing {number}" for number in range(5))))
    version = publish.publish(
        directory / "adapted.onnx", "openvino", repository, InstanceGroup(count=instances, threads=1)
    )
    activate(repository, int(version.name))
    return repository


@contextmanager
def small_server(directory: Path) -> Iterator[TritonServer]:
    """Serve that detector."""
    repository = small_repository(directory)
    with TritonServer(repository, ports=Ports.free(), log_path=directory / "log") as server:
        yield server


class Campaign:
    """Threads that send files and requests to one server until they have sent enough, or the time is over."""

    def __init__(self, server: TritonServer, seed: int, keep: Path) -> None:
        """Prepare; a batch that fails is kept as files in `keep`."""
        self.result = Result()
        self._server = server
        self._seed = seed
        self._keep = keep
        self._seeds = seeds()
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def run(self, files: int, requests: int, seconds: float, threads: int = 3) -> Result:
        """Send so many files and requests, or as many as the time allows."""
        deadline = time.monotonic() + seconds
        before = _settled(self._server)
        with DetectionClient(self._server.grpc_address, retries=0) as client:
            good = client.detect(JPEG)
        workers = [
            threading.Thread(target=self._send_files, args=(number, -(-files // threads), deadline, good))
            for number in range(threads)
        ]
        workers.append(threading.Thread(target=self._send_requests, args=(requests, deadline, good)))
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        for process in before:
            if process not in self._server.processes():
                self._fail(f"the process {process.pid} of {process.model} died")
        return self.result

    def _send_files(self, number: int, files: int, deadline: float, good: Detections) -> None:
        random = Random(f"{self._seed} files {number}")
        sent = 0
        with DetectionClient(self._server.grpc_address, retries=0, timeout_s=ANSWER_S) as client:
            while sent < files and time.monotonic() < deadline and not self._stop.is_set():
                names = random.choices(sorted(self._seeds), k=BATCH - 1)
                batch = [
                    mutate(random.choice(self._seeds[name]), random.choice(self._seeds[name]), random) for name in names
                ]
                position = random.randrange(BATCH)
                started = time.monotonic()
                try:
                    answers = client.detect_batch([*batch[:position], JPEG, *batch[position:]])
                except TriptychError as error:
                    self._fail(f"no answer to batch {number}-{sent}: {error}", batch, f"{number}-{sent}")
                    continue
                finally:
                    sent += len(batch)
                if not _is_same(answers.pop(position), good):
                    self._fail(f"a good image of batch {number}-{sent} got another answer", batch, f"{number}-{sent}")
                self._count(names, answers, time.monotonic() - started)

    def _count(self, names: list[str], answers: list[Detections], took_s: float) -> None:
        with self._lock:
            self.result.files.update(names)
            self.result.slowest_s = max(self.result.slowest_s, took_s)
            for answer in answers:
                limit = any(
                    words in answer.error for words in ("ends its decoder", "more than 2 s", "cannot be processed")
                )
                self.result.answers[answer.error if limit else "refused" if answer.error else "decoded"] += 1

    def _send_requests(self, requests: int, deadline: float, good: Detections) -> None:
        random = Random(f"{self._seed} requests")
        address = self._server.grpc_address
        with (
            grpc.insecure_channel(address) as channel,
            DetectionClient(address, retries=0, timeout_s=ANSWER_S) as client,
        ):
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            for number in range(requests):
                if time.monotonic() > deadline or self._stop.is_set():
                    return
                request = malformed(random)
                try:
                    stub.ModelInfer(request, timeout=ANSWER_S)
                    status = "OK"
                except grpc.RpcError as error:
                    status = error.code().name
                    if status == "INTERNAL":  # an exception that nobody expected, so its words matter
                        status = f"INTERNAL: {(error.details() or '').splitlines()[0]}"
                    # An exception in a model fails the other requests that it got in the same call.
                    bad = any(words in status for words in ("not healthy", "Failed to process"))
                    # A request may also ask for less time in a queue than there is.
                    lost = status == "UNAVAILABLE" and "timeout expired" not in (error.details() or "")
                    if bad or lost or status == "DEADLINE_EXCEEDED":
                        self._fail(f"request {number}: {status}: {error.details()}")
                self.result.requests[status] += 1
                if number % 50 == 0:
                    self._check_good(client, good, number)

    def _check_good(self, client: DetectionClient, good: Detections, number: int) -> None:
        try:
            if not _is_same(client.detect(JPEG), good):
                self._fail(f"a good image after request {number} got another answer")
        except TriptychError as error:
            self._fail(f"no answer to a good image after request {number}: {error}")

    def _fail(self, sentence: str, batch: list[bytes] | None = None, name: str = "") -> None:
        with self._lock:
            self.result.failures.append(sentence)
            if len(self.result.failures) > 20:
                self._stop.set()
            for number, encoded in enumerate(batch or ()):
                self._keep.mkdir(parents=True, exist_ok=True)
                (self._keep / f"{name}-{number}").write_bytes(encoded)


def _settled(server: TritonServer) -> list[ModelProcess]:
    """Wait until the processes that a reload replaced are gone, and return the others."""
    while True:
        processes = server.processes()
        time.sleep(2)
        if server.processes() == processes:
            return processes


def _is_same(answer: Detections, good: Detections) -> bool:
    return not answer.error and np.array_equal(answer.boxes_xyxy, good.boxes_xyxy)
