"""Whether a server is ready: all of its stages are, and an image goes through them in time."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

import grpc

from triptych.contract import DETECTION, MODELS, POSTPROCESS
from triptych.errors import DeadlineExceeded, RequestError, ServerOverloaded
from triptych.serving.health import canary_request, first_idle
from triptych.wire.credentials import LOCAL, Credentials
from triptych.wire.model_control import ModelControl
from triptych.wire.statistics import Counters, Snapshot
from triptych.wire.status import Target, explain_rpc_error

LOOK_EVERY_S = 0.1


@dataclass(frozen=True)
class Readiness:
    """Whether a server is ready, and what is to be said about it in one line."""

    is_ready: bool
    line: str


def ask_ready(address: str, timeout_s: float, credentials: Credentials = LOCAL) -> Readiness:
    """Ask a server whether it is ready, and send it a tiny image.

    A server whose queues are full is ready as long as others get their answers: to take it away would only leave more
    to the next one.

    Args:
        address: host:port.
        timeout_s: for all of it.
        credentials: how to connect.

    Raises:
        ContractError: a file of the credentials cannot be used.
    """
    began = time.monotonic()
    target = Target(address, DETECTION.name, timeout_s)
    with contextlib.closing(ModelControl(address, credentials=credentials)) as control:
        try:
            before = control.statistics(timeout_s)
            if missing := [model.name for model in MODELS if model.name not in before]:
                return Readiness(False, f"not ready: {', '.join(missing)} of {address} cannot be asked")
            left_s = began + timeout_s - time.monotonic()
            control.ask(canary_request("triptych-ready"), max(0.001, left_s)).result()
        except grpc.RpcError as error:
            failure: RequestError = explain_rpc_error(error, target).error
        else:
            took_ms = 1000 * (time.monotonic() - began)
            return Readiness(True, f"ready: {address} answered an image, {took_ms:.0f} ms in all")
        if isinstance(failure, ServerOverloaded):
            if _others_are_answered(control, before, began + timeout_s):
                return Readiness(True, f"ready, but busy: {address} refuses an image and answers others")
        elif isinstance(failure, DeadlineExceeded):
            with contextlib.suppress(grpc.RpcError):
                if (stage := first_idle(before, control.statistics(1.0))) is not None:
                    return Readiness(
                        False, f"not ready: {stage} of {address} did nothing with an image within {timeout_s:g} s"
                    )
        return Readiness(False, f"not ready: {failure}")


def _others_are_answered(control: ModelControl, before: Snapshot, deadline: float) -> bool:
    answers = before.get(POSTPROCESS.name, Counters()).requests
    while time.monotonic() < deadline:
        with contextlib.suppress(grpc.RpcError):
            if control.statistics(1.0).get(POSTPROCESS.name, Counters()).requests > answers:
                return True
        time.sleep(LOOK_EVERY_S)
    return False
