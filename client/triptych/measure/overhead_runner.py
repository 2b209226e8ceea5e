"""The loop and the service in turn, on the same images, and what each of them took."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from triptych.client import DetectionClient
from triptych.contract import DETECTOR
from triptych.detections import Detections
from triptych.errors import ContractError, MeasurementError
from triptych.machine import available_cores
from triptych.measure import attribution
from triptych.measure.attribution import Answer, Breakdown, Requests, Source
from triptych.measure.environment import describe_machine, settled_statistics, with_server
from triptych.measure.histogram import Histogram
from triptych.measure.overhead import CLIENT, Overhead, Setting, interval_ms, mean_steps, rows_of
from triptych.measure.own_loop import OwnLoop, ServedFile, Steps
from triptych.measure.run_file import ImageSet
from triptych.measure.traces import TracedRequest, Tracing, sampling
from triptych.measure.window import Window
from triptych.vision.boxes import Detected
from triptych.vision.jpeg import is_quick
from triptych.wire.credentials import LOCAL, Credentials
from triptych.wire.effects import Call
from triptych.wire.model_control import CALL_TIMEOUT_S, ModelControl
from triptych.wire.status import Target, explain_rpc_error

FEWEST_ROUNDS = 4
"""Of fewer there is no interval worth its name."""

LEAST_TRACED = 0.9
"""Where fewer of the requests that should be traced left a whole trace, the statistics count."""

BOX_TOLERANCE_PX, SCORE_TOLERANCE = 1.0, 0.01
"""Boxes and scores that differ by less are the same: the order of sums differs with the threads."""


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        address: the server's, host:port.
        images: encoded; all of them in turn.
        model_repository: what the server serves.
        frames: images of each side, over all rounds.
        rounds: turns of each side.
        users: requests in flight at once.
        threads: CPU threads of the loop's runtime; None for all cores.
        credentials: how to connect.

    Raises:
        ContractError: a number is too small.
    """

    address: str
    images: Sequence[bytes]
    model_repository: Path
    frames: int = 200
    rounds: int = 10
    users: int = 1
    threads: int | None = None
    credentials: Credentials = LOCAL

    def __post_init__(self) -> None:
        if self.rounds < FEWEST_ROUNDS or self.frames < self.rounds or self.users < 1:
            raise ContractError(
                f"expected {FEWEST_ROUNDS} rounds or more, as many frames at least, and one user or more, but got "
                f"{self.rounds} rounds, {self.frames} frames and {self.users} users"
            )


class _TimedClient(DetectionClient):
    """A client that notes what it took around each of its calls of the server."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.called_ms: dict[str, float] = {}

    def _send(self, rpc: Callable[..., Any], call: Call) -> Any:
        began = time.perf_counter()
        try:
            return super()._send(rpc, call)
        finally:
            if request_id := getattr(call.request, "id", ""):
                self.called_ms[request_id] = (time.perf_counter() - began) * 1000


class _Contest:
    """The two sides, and what each image took on them.

    Attributes:
        loop_ms: of each image in the loop.
        steps: of each image in the loop.
        alike: the same in a loop with the server's threads; empty if the loop has them anyway.
        latencies_ms: by the request's id.
        differences_ms: of each round, the mean of the service less that of the loop.
        agreed: on how many images both sides found the same objects.
    """

    def __init__(self, client: _TimedClient, pool: ThreadPoolExecutor, served: ServedFile, setting: Setting) -> None:
        self._client, self._pool = client, pool
        self._loop = OwnLoop(served, setting.loop_threads or 1)
        self._alike = OwnLoop(served, setting.served_threads or 1) if setting.other_threads else None
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.loop_ms: list[float] = []
        self.steps: list[Steps] = []
        self.alike: list[Steps] = []
        self.latencies_ms: dict[str, float] = {}
        self.differences_ms: list[float] = []
        self.agreed = 0

    def take_turns(self, number: int, images: Sequence[bytes]) -> None:
        """Have each side detect in the same images, this round's.

        The side that goes first changes from round to round, so that a drift of the machine harms both alike.
        """
        if number % 2:
            theirs, ours = self._turn_of_service(number, images), self._turn_of_loop(images)
        else:
            ours, theirs = self._turn_of_loop(images), self._turn_of_service(number, images)
        if self._alike:
            self.alike += [self._alike.detect(image)[1] for image in images]
        count = len(images)
        served_ms = list(self.latencies_ms.values())[-count:]
        self.differences_ms.append(float(np.mean(served_ms) - np.mean(self.loop_ms[-count:])))
        self.agreed += sum(map(_same, ours, theirs))

    def _turn_of_loop(self, images: Sequence[bytes]) -> list[Detected]:
        found = []
        for image in images:
            began = time.perf_counter()
            detected, steps = self._loop.detect(image)
            self.loop_ms.append((time.perf_counter() - began) * 1000)
            self.steps.append(steps)
            found.append(detected)
        return found

    def _turn_of_service(self, number: int, images: Sequence[bytes]) -> list[Detections]:
        def ask(index: int, image: bytes) -> Detections:
            request_id = f"{number}-{index}"
            began = time.perf_counter()
            detections = self._client.detect(image, request_id=request_id)
            self.latencies_ms[request_id] = (time.perf_counter() - began) * 1000
            return detections

        return list(self._pool.map(ask, itertools.count(), images))


def measure(plan: Plan, command: list[str], progress: Callable[[int, int], None]) -> Overhead:
    """Let the loop and the service take turns.

    Args:
        plan: what to measure.
        command: what was typed.
        progress: takes how many rounds are done, and of how many.

    Raises:
        ContractError: the server's file is not in the model repository.
        BuildError: its runtime is not installed here.
        ImageError: an image cannot be read.
        RequestError: the server does not answer, or refuses.
        MeasurementError: the server began to count anew meanwhile.
    """
    client = _TimedClient(plan.address, retries=0, credentials=plan.credentials)
    with (
        client,
        Tracing(plan.address, plan.credentials) as tracing,
        ThreadPoolExecutor(plan.users) as pool,
    ):
        client.spec()  # connects; if nobody is there it is known now
        served, setting = _setting(plan)
        contest, rounds = _Contest(client, pool, served, setting), _rounds(plan)
        contest.take_turns(0, rounds[0])  # warms up
        per_s = 1000 * plan.users / float(np.mean(list(contest.latencies_ms.values())))
        contest.forget()
        is_traced, traced = tracing.start(sampling(per_s, len(plan.images))), list[TracedRequest]()
        started, before = datetime.now(timezone.utc), settled_statistics(client)
        began_s = time.perf_counter()
        for number, images in enumerate(rounds):
            progress(number, len(rounds))
            contest.take_turns(number, images)
            traced += tracing.poll() if is_traced else ()
        seconds = time.perf_counter() - began_s
        latencies = Histogram(contest.latencies_ms.values())
        window = Window.between(before, settled_statistics(client), latencies, seconds)
        traced += tracing.stop(latencies.count) if is_traced else ()
        client_ms = {name: latency - client.called_ms[name] for name, latency in contest.latencies_ms.items()}
        requests = Requests.join(
            traced,
            {name: Answer(ms, 0.0, {CLIENT: client_ms[name]}) for name, ms in contest.latencies_ms.items()},
        )
        source, mean = _mean(requests, window, client_ms, tracing.rate)
        environment = with_server(describe_machine(plan.address), client, plan.model_repository)
    steps, loop_ms = mean_steps(contest.steps), float(np.mean(contest.loop_ms))
    inference_ms = mean_steps(contest.alike).inference if contest.alike else steps.inference
    low_ms, high_ms = interval_ms(contest.differences_ms)
    return Overhead(
        started=started.isoformat(timespec="seconds"),
        environment=environment,
        images=ImageSet.of(plan.images),
        setting=setting,
        frames=len(contest.loop_ms),
        agreed=contest.agreed,
        source=source,
        loop_ms=loop_ms,
        served_ms=mean.total_ms,
        low_ms=low_ms,
        high_ms=high_ms,
        rows=rows_of(setting, loop_ms, steps, inference_ms, mean, (served.spec.width, served.spec.height)),
        command=command,
    )


def _setting(plan: Plan) -> tuple[ServedFile, Setting]:
    control = ModelControl(plan.address, credentials=plan.credentials)
    try:
        config = control.config(DETECTOR.name)
    except grpc.RpcError as error:
        target = Target(plan.address, DETECTOR.name, CALL_TIMEOUT_S, plan.credentials)
        raise explain_rpc_error(error, target).error from error
    finally:
        control.close()
    served = ServedFile.of(config, plan.model_repository)
    apart = [image for image in plan.images if not is_quick(image)]
    return served, Setting(
        runtime=served.runtime,
        loop_threads=None if served.threads is None else plan.threads or available_cores(),
        served_threads=served.threads,
        instances=sum(group.count for group in config.instance_group),
        max_queue_delay_us=config.dynamic_batching.max_queue_delay_microseconds,
        users=plan.users,
        apart=len(apart) / len(plan.images),
    )


def _rounds(plan: Plan) -> list[list[bytes]]:
    """Return the images of each round: all of them in turn, and the rounds as equal as can be."""
    endless: Iterator[bytes] = itertools.cycle(plan.images)
    ends = np.linspace(0, plan.frames, plan.rounds + 1).astype(int)
    return [list(itertools.islice(endless, int(count))) for count in np.diff(ends)]


def _mean(requests: Requests, window: Window, client_ms: dict[str, float], rate: int) -> tuple[Source, Breakdown]:
    """Return where the mean of the served requests went, and how that is known.

    Raises:
        MeasurementError: a model began to count anew meanwhile.
    """
    if window.interrupted:
        raise MeasurementError(f"{window.interrupted}; measure again")
    if len(requests) >= max(1, LEAST_TRACED * len(client_ms) / rate):
        return "traces", requests.breakdown()
    own_ms = {CLIENT: sum(client_ms.values()) / max(1, len(client_ms))}
    return "statistics", attribution.from_statistics(window, own_ms).breakdowns["mean"]


def _same(ours: Detected, theirs: Detections) -> bool:
    """Say whether both sides found the same objects in an image."""
    count = int(ours.counts[0, 0])
    return (
        count == len(theirs)
        and np.array_equal(ours.labels[0, :count], theirs.labels)
        and np.allclose(ours.scores[0, :count], theirs.scores, atol=SCORE_TOLERANCE)
        and np.allclose(ours.boxes_xyxy[0, :count], theirs.boxes_xyxy, atol=BOX_TOLERANCE_PX)
    )
