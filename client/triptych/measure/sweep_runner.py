"""A sweep's points: load tests as processes of their own, and the settings of the running detector between them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import grpc
from tritonclient.grpc import model_config_pb2

from triptych.contract import DETECTOR
from triptych.errors import ContractError, DeadlineExceeded, ServerUnavailable, TriptychError
from triptych.measure import run_file
from triptych.measure.run_file import Run
from triptych.measure.sweep import Budget, LoadLevel, Percentile, Point, Series, Setting
from triptych.measure.sweep_file import Sweep
from triptych.measure.sweep_search import search_most
from triptych.measure.sweep_sentences import sentences
from triptych.wire.credentials import LOCAL, Credentials
from triptych.wire.model_control import CALL_TIMEOUT_S, ModelControl
from triptych.wire.status import Target, explain_rpc_error

LOAD_TIMEOUT_S = 60.0
"""How long the server may take to change the detector's settings."""

POINT_TIMEOUT_S = 60.0
"""How much longer than warm-up and measurement together a load test may take."""

SERVER_DEAD = 3
"""The exit code of a load test whose server does not answer; `triptych.cli.console` has all of them."""

INTERRUPT_TIMEOUT_S = 15.0
"""How long a load test that is interrupted may take to switch the server's traces off."""

_LOADTEST = [sys.executable, "-m", "triptych", "loadtest"]


@dataclass
class LoadTests:
    """Load tests, each a process of its own, and what they measured.

    Attributes:
        address: the server's.
        images: the directory of the images to send.
        duration_s, warmup_s, batch: of every load test.
        directory: for their run files.
        seed: of the first one's cameras; each has phases of its own.
        credentials: how to connect to the server.
        original: the detector's configuration before the sweep, if the sweep changes it.
        runs: in the order in which they were measured.
        points: the same, by setting.
    """

    address: str
    images: Path
    duration_s: float
    warmup_s: float
    batch: int
    directory: Path
    seed: int = 1
    credentials: Credentials = LOCAL
    original: model_config_pb2.ModelConfig | None = None
    runs: list[Run] = field(default_factory=list)
    points: dict[Setting, list[Point]] = field(default_factory=dict)

    def measure(self, load: LoadLevel, setting: Setting, confirm_s: float | None = None) -> Point:
        """Run one load test, or a longer one whose point takes the place of what was measured of this load.

        Args:
            load: what is asked of the server.
            setting: what the server has.
            confirm_s: how long the longer one is measured; None for an ordinary one.

        Raises:
            TriptychError: it could not be measured; the sentence is the load test's own.
        """
        name = f"{setting} {load}{' confirmed' if confirm_s else ''}".replace("µ", "u")
        out = self.directory / f"{re.sub(r'[^0-9a-z.]+', '-', name)}.json"
        duration_s = confirm_s or self.duration_s
        options = ["--address", self.address, "--images", self.images, "--batch", self.batch]
        options += self.credentials.options()
        options += ["--users", load.users] if load.rate_per_s is None else ["--rate", load.rate_per_s]
        options += ["--fps", load.fps, "--seed", self.seed + len(self.runs)] if load.fps else []
        run = run_load_test(options, out, self.warmup_s, duration_s)
        point = Point.of(run, load, setting, confirmed=confirm_s is not None)
        self.runs.append(run)
        others = [other for other in self.points.get(setting, []) if not (confirm_s and other.load == load)]
        self.points[setting] = [*others, point]
        return point

    def result(self, budget: Budget | None, at: Percentile, command: list[str]) -> Sweep:
        """Put the points together; there is at least one.

        Args:
            budget: what an answer may take, if anybody set one.
            at: the percentile that it holds for.
            command: what was typed.
        """
        series = [Series.of(str(setting), points, budget) for setting, points in self.points.items()]
        first = self.runs[0]
        environment = first.environment
        if environment.detector and self.original is not None:
            count = sum(group.count for group in self.original.instance_group)
            environment = replace(environment, detector=replace(environment.detector, instances=count))
        return Sweep(
            started=first.started,
            environment=environment,
            images=first.workload.images,
            budget_ms=budget.ms if budget else None,
            budget_at=at,
            series=series,
            sentences=sentences(series, budget),
            command=command,
            max_dropped=budget.max_dropped if budget else None,
        )


def run_load_test(options: Sequence[object], out: Path, warmup_s: float, duration_s: float) -> Run:
    """Carry out a load test in a process of its own, and read its run file.

    Args:
        options: of `triptych loadtest`, but for those below.
        out: where its run file goes.
        warmup_s: how long the load goes on before anything counts.
        duration_s: how long it is measured.

    Raises:
        TriptychError: it could not be measured; the sentence is the load test's own.
    """
    out.unlink(missing_ok=True)
    own = ("--out", out, "--warmup-s", warmup_s, "--duration-s", duration_s)
    code, messages = _run([*_LOADTEST, *map(str, (*options, *own))], duration_s + warmup_s)
    if not out.exists():  # requests that fail set an exit code too, but have their run
        reason = messages[-1].removeprefix("error: ") if messages else "the load test left no run"
        if code == SERVER_DEAD:
            raise ServerUnavailable(reason, grpc.StatusCode.UNAVAILABLE)
        raise TriptychError(reason)
    return run_file.read(out)


def _run(command: Sequence[str], seconds: float) -> tuple[int, list[str]]:
    """Run a load test of so many seconds to its end; return its exit code and the lines of its standard error.

    Raises:
        DeadlineExceeded: it did not end.
    """
    # In a session of its own: Ctrl-C reaches this process alone, which gives it time to leave the server as it was.
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, stderr = process.communicate(timeout=seconds + POINT_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        late = f"a load test of {seconds:g} s did not end within {seconds + POINT_TIMEOUT_S:g} s; is the server stuck?"
        raise DeadlineExceeded(late, grpc.StatusCode.DEADLINE_EXCEEDED) from error
    finally:
        if process.poll() is None:
            process.terminate()  # SIGINT is ignored by what a shell starts in the background
            try:
                process.wait(INTERRUPT_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    return process.returncode, [line for line in stderr.splitlines() if line.strip()]


class Progress(Protocol):
    """What shows how far a sweep has come."""

    def under_way(self, setting: Setting, load: LoadLevel | None, points: Sequence[Point]) -> None:
        """Take what is measured now, and the points so far; without a load, the detector is being loaded."""

    def finished(self, setting: Setting, points: Sequence[Point]) -> None:
        """Take all points of a setting."""


def measure_all(
    load_tests: LoadTests,
    settings: Sequence[Setting],
    loads: Sequence[LoadLevel],
    budget: Budget | None,
    progress: Progress,
) -> None:
    """Measure every load with every setting; of rates and cameras with a budget, search the most within it.

    Raises:
        TriptychError: a setting could not be made, or a load could not be measured.
    """
    changes = any(setting != Setting() for setting in settings)
    with changed_settings(load_tests) if changes else nullcontext(lambda _setting: None) as change:
        for setting in settings:
            try:
                progress.under_way(setting, None, [])
                change(setting)
                measure = partial(_measure, load_tests, setting, progress)
                if budget and (loads[0].fps or loads[0].rate_per_s):
                    search_most(loads, measure, budget, load_tests.duration_s)
                else:
                    for load in loads:
                        measure(load)
            finally:
                progress.finished(setting, load_tests.points.get(setting, []))


def _measure(
    load_tests: LoadTests, setting: Setting, progress: Progress, load: LoadLevel, confirm_s: float | None = None
) -> Point:
    progress.under_way(setting, load, load_tests.points.get(setting, []))
    return load_tests.measure(load, setting, confirm_s)


@contextmanager
def changed_settings(load_tests: LoadTests) -> Iterator[Callable[[Setting], None]]:
    """Give the function that changes the settings of the running detector; at the end it has its own again.

    Raises:
        ContractError: the server does not allow it, or did not take them back.
        RequestError: it does not answer, or cannot load the detector so.
    """
    control = ModelControl(load_tests.address, credentials=load_tests.credentials)
    target = Target(load_tests.address, DETECTOR.name, CALL_TIMEOUT_S, load_tests.credentials)
    try:
        try:
            original = load_tests.original = control.config(DETECTOR.name)
        except grpc.RpcError as error:
            raise explain_rpc_error(error, target).error from error
        now = original

        def change(setting: Setting) -> None:
            nonlocal now
            wanted = setting.applied(original)
            if wanted == now:
                return
            now = wanted  # whether it arrives or not, it is put back
            try:
                control.load(DETECTOR.name, LOAD_TIMEOUT_S, wanted)
            except grpc.RpcError as error:
                if "not allowed" in (error.details() or ""):
                    now = original
                    raise ContractError(
                        f"the server at {load_tests.address} does not let its models be changed; start it with "
                        "`triptych serve` or with --model-control-mode=explicit, or leave out --instances and "
                        "--max-queue-delay-us"
                    ) from error
                raise explain_rpc_error(error, replace(target, timeout_s=LOAD_TIMEOUT_S)).error from error

        try:
            yield change
        finally:
            if now != original:
                _put_back(control, original, load_tests.address)
    finally:
        control.close()


def _put_back(control: ModelControl, original: model_config_pb2.ModelConfig, address: str) -> None:
    try:
        control.load(DETECTOR.name, LOAD_TIMEOUT_S, original)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAVAILABLE:
            return  # it is gone, and its changed settings with it
        raise ContractError(
            f"the detector of {address} does not take its own settings back ({error.details()}); restart the server"
        ) from error
