"""Triton's own traces: when each request reached and left each model, switched on for a while and read back.

A server writes them to the file that it was started with (`triptych serve` names one), so that they can be read on its
own machine alone. Switching them on and off goes through the API. Each trace is one model's part in one request. The
traces of preprocess, detector and postprocess name the ensemble's trace as their parent, and all have the id that the
client gave the request.

Of many requests a second only one in so many is traced: Triton 2.51 was seen to die while it traced hundreds of them
a second, and never without traces at that load. Triton is told to stop after a few seconds' worth of traces, again and
again for as long as somebody reads them: whoever is killed leaves it tracing for a moment only.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import math
import os
import re
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from triptych.contract import DETECTION, STAGES
from triptych.errors import MeasurementError
from triptych.wire.channel import open_channel
from triptych.wire.credentials import LOCAL, Credentials

NS_PER_MS = 1e6

PARTS = ("queue", "input", "infer", "output")
"""The parts of a stage: waiting for a free instance, gathering inputs, in the model, handing out outputs."""

CALL_TIMEOUT_S = 10.0

SETTLE_S = 3.0
"""How long the last traces may take to be written once they are switched off."""

TRACES_A_FILE = 1000
"""Triton holds so many requests in memory before it writes them to a file of their own."""

MOST_TRACES_PER_S = 50.0
"""At most about so many requests a second are traced.

Triton 2.51 writes to a trace that it has freed (`TraceManager::TraceRelease` unlocks it last). That does harm if
another one takes its place in that microsecond, and the chance of it grows with the square of this rate.
"""

RENEW_S = 5.0
"""So often Triton is told to go on tracing. Each time it writes what it has traced to a file of its own..."""

TRACES_TO_GO = 2000
"""...and it stops by itself after so many traced requests."""

_OFF = {"trace_level": ["OFF"], "trace_rate": ["1000"], "trace_count": ["-1"], "log_frequency": ["0"]}

# Not read as JSON: Triton does not escape a request's id, and a file may end in the middle of a trace.
_MODEL = re.compile(
    r'\{"id":(\d+),"model_name":"([^"]*)","model_version":-?\d+(?:,"request_id":"(.*?)")?(?:,"parent_id":(\d+))?\}'
)
_TIMESTAMP = re.compile(r'\{"id":(\d+),"timestamps":\[\{"name":"(\w+)","ns":(\d+)\}\]\}')

# Where one part of a stage ends and the next begins.
_BOUNDARIES = ("REQUEST_START", "COMPUTE_START", "COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START", "COMPUTE_END")


@dataclass(frozen=True)
class Trace:
    """One model's part in one request.

    Attributes:
        model: its name.
        request_id: what the client called the request; empty if it did not.
        parent_id: the trace of the ensemble that the model is part of; None for the ensemble's own.
        at_ns: when what happened, by the server's monotonic clock, in nanoseconds.
    """

    model: str
    request_id: str
    parent_id: int | None
    at_ns: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class TracedRequest:
    """Where one request was, as the server saw it.

    The parts do not overlap, and with the overhead they make up `server_ms`: a stage ends where the next one begins,
    and the last one where the ensemble answers, though Triton itself lets a stage's output go on beyond that.

    Attributes:
        request_id: what the client called it.
        server_ms: from its arrival at the ensemble to the response, in milliseconds.
        stages: milliseconds by stage and part.
        overhead_ms: `server_ms` without the stages: what the ensemble itself took.
        began_ns: when it arrived, by the server's monotonic clock, in nanoseconds.
    """

    request_id: str
    server_ms: float
    stages: Mapping[str, Mapping[str, float]]
    overhead_ms: float
    began_ns: int = 0


def sampling(requests_per_s: float, cycle: int = 1) -> int:
    """Return of how many requests one is traced, at so many a second.

    It has no factor in common with `cycle`, after how many requests the same image comes again: else the traces would
    be of some images only. Of images that are drawn at random there is no such number.

    >>> sampling(100), sampling(700), sampling(700, cycle=6)
    (2, 14, 17)
    """
    rate = max(1, math.ceil(requests_per_s / MOST_TRACES_PER_S))
    while math.gcd(rate, cycle) > 1:
        rate += 1
    return rate


def parse(text: str) -> dict[int, Trace]:
    """Return the traces of a file by their ids; what is cut off at its end is left out."""
    traces = {
        int(number): Trace(model, request_id or "", int(parent) if parent else None)
        for number, model, request_id, parent in _MODEL.findall(text)
    }
    for number, name, nanoseconds in _TIMESTAMP.findall(text):
        if (trace := traces.get(int(number))) is not None:
            trace.at_ns[name] = int(nanoseconds)
    return traces


def join(traces: Mapping[int, Trace]) -> list[TracedRequest]:
    """Return the requests whose every stage was traced to its end; others, failed or cut off, are left out."""
    children: defaultdict[int, dict[str, Trace]] = defaultdict(dict)
    for trace in traces.values():
        if trace.parent_id is not None:
            children[trace.parent_id][trace.model] = trace
    joined = (
        _request(trace, children[number])
        for number, trace in traces.items()
        if trace.model == DETECTION.name and trace.parent_id is None
    )
    return [request for request in joined if request is not None]


def _request(ensemble: Trace, children: Mapping[str, Trace]) -> TracedRequest | None:
    try:
        began, answered = ensemble.at_ns["REQUEST_START"], ensemble.at_ns["INFER_RESPONSE_COMPLETE"]
        boundaries = {stage.name: [children[stage.name].at_ns[name] for name in _BOUNDARIES] for stage in STAGES}
    except KeyError:
        return None
    in_order = sorted(boundaries, key=lambda name: boundaries[name][0])
    stages: dict[str, dict[str, float]] = {}
    for number, name in enumerate(in_order):
        end = boundaries[in_order[number + 1]][0] if number + 1 < len(in_order) else answered
        within = [min(at, end) for at in boundaries[name]]
        spans = (after - before for before, after in itertools.pairwise(within))
        stages[name] = {part: span / NS_PER_MS for part, span in zip(PARTS, spans, strict=True)}
    server_ms = (answered - began) / NS_PER_MS
    in_stages = sum(sum(parts.values()) for parts in stages.values())
    return TracedRequest(ensemble.request_id, server_ms, stages, server_ms - in_stages, began)


class Tracing:
    """Traces of one in `rate` requests from `start` to `stop`, if the server writes them where we can read them.

    Attributes:
        rate: of how many requests one is traced.
    """

    def __init__(self, address: str, credentials: Credentials = LOCAL) -> None:
        """Trace the server at `address`, host:port."""
        self.rate = 1
        self._address, self._credentials = address, credentials
        self._channel = open_channel(grpc, address, credentials)
        self._service = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._before: dict[str, list[str]] = {}
        self._file: Path | None = None
        self._lock: int | None = None
        self._older: set[Path] = set()
        self._renewed_s = 0.0
        self._renewals = self._count = 0

    def __enter__(self) -> Tracing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._switch_back()
        except grpc.RpcError:
            pass  # whatever ended the block says more than that the server is gone
        finally:
            self._channel.close()
            if self._lock is not None:
                os.close(self._lock)

    def claim(self) -> bool:
        """Keep other measurements of this server out from now on; False if it has no traces that we could read.

        Raises:
            MeasurementError: another one is under way.
        """
        if self._file:
            return True
        try:
            file = self._set({}).get("trace_file", [""])[0]
            if not file or not Path(file).parent.is_dir():
                return False
            # The kernel gives back the lock on their directory, however its holder ends.
            lock = os.open(Path(file).parent, os.O_RDONLY | os.O_CLOEXEC)
        except (grpc.RpcError, OSError):
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise MeasurementError(
                f"another measurement of the server at {self._address} is under way, and each would measure the "
                "other's load; wait until it has ended"
            ) from error
        self._lock, self._file = lock, Path(file)
        return True

    def start(self, rate: int = 1) -> bool:
        """Switch on the traces of one in `rate` requests; False if this server has none that we could read.

        Raises:
            MeasurementError: another measurement of it is under way.
        """
        self.rate = rate
        if not self.claim():
            return False
        try:
            self._older = set(self._files())
            settings = self._set({})
            # A load test that was killed left its own settings.
            is_left_over = settings["log_frequency"] == [str(TRACES_A_FILE)]
            self._before = _OFF if is_left_over else {name: settings[name] for name in _OFF}
            self._set({"trace_rate": [str(rate)], "log_frequency": [str(TRACES_A_FILE)]})
            self._renew({"trace_level": ["TIMESTAMPS"]})
            self._renewals = self._count = 0
        except (grpc.RpcError, OSError):
            return False
        return True

    def poll(self) -> list[TracedRequest]:
        """Return the requests whose traces have been written since the last time; remove their files.

        To be called all the while, or Triton stops tracing; most calls cost nothing.
        """
        if time.monotonic() < self._renewed_s + RENEW_S:
            return []
        try:
            self._renew({})
            return self._read()
        except (grpc.RpcError, OSError):
            return []  # the server is gone, or its files are not ours

    def stop(self, requests: int) -> list[TracedRequest]:
        """Switch the traces off again, and return what `poll` has not; remove their files.

        Triton writes the last file when the last request has left all of its stages, which is a little after the
        client has its answer. What is not there `SETTLE_S` later is not waited for.

        Args:
            requests: how many were answered since `start`, of which one in `rate` has traces.
        """
        read: list[TracedRequest] = []
        # With each renewal Triton counts anew to the next request that it traces.
        expected = requests // self.rate - (self._renewals if self.rate > 1 else 0)
        deadline = time.monotonic() + SETTLE_S
        try:
            self._switch_back()
            while True:
                read += self._read()
                if self._count >= expected or time.monotonic() > deadline:
                    break
                time.sleep(0.05)
        except (grpc.RpcError, OSError):
            pass  # the server is gone, or its files are not ours: what was read by then is all there is
        return read

    def _read(self) -> list[TracedRequest]:
        """Read and remove the files that are whole; all traces of a request are in one of them."""
        read: list[TracedRequest] = []
        for path in sorted(set(self._files()) - self._older):
            text = path.read_text(errors="replace")
            if text.endswith("]"):
                read += join(parse(text))
                self._older.add(path)
                with contextlib.suppress(PermissionError):
                    path.unlink(missing_ok=True)
        self._count += len(read)
        return read

    def _files(self) -> list[Path]:
        file = self._file
        found = file.parent.glob(f"{file.name}.*") if file else ()
        return [path for path in found if path.suffix[1:].isdigit()]

    def _renew(self, changes: Mapping[str, list[str]]) -> None:
        """Let Triton trace `TRACES_TO_GO` more requests; it writes those that it has traced."""
        self._set({**changes, "trace_count": [str(TRACES_TO_GO)]})
        self._renewed_s = time.monotonic()
        self._renewals += 1

    def _switch_back(self) -> None:
        before, self._before = self._before, {}
        if before:
            self._set({"trace_level": ["OFF"]})  # only this writes what is still in memory
            self._set(before)

    def _set(self, settings: Mapping[str, list[str]]) -> dict[str, list[str]]:
        """Change settings; all of them as they are then."""
        request = service_pb2.TraceSettingRequest()
        for name, values in settings.items():
            request.settings[name].value.extend(values)
        answer = self._service.TraceSetting(
            request, timeout=CALL_TIMEOUT_S, metadata=self._credentials.headers(self._address)
        )
        return {name: list(setting.value) for name, setting in answer.settings.items()}
