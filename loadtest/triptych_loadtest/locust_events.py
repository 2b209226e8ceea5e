"""The users as an ordinary locustfile: with Locust's web page, `--headless`, or `--master` and its `--worker`s."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping
from functools import partial
from typing import Any

import gevent
from flask import jsonify, request
from locust import LoadTestShape, events
from locust.runners import MasterRunner, WorkerRunner
from locust.util.timespan import parse_timespan

from triptych.errors import TriptychError
from triptych.wire.channel import check_address
from triptych_loadtest.locust_options import add_options, payloads_of, profile_of
from triptych_loadtest.shapes import users_at
from triptych_loadtest.users import DetectionUser

FASTEST_SPAWN = 100.0
"""Users a second that Locust can start."""


class UsersOverTime(LoadTestShape):  # type: ignore[misc]
    """Changes the number of users as `--shape` says, up to `--users`, over `--run-time`; not for open loops."""

    abstract = True  # Locust would use every shape that it finds in a locustfile
    use_common_options = True

    def __init__(self, options: Namespace) -> None:
        """Take the options of the command line; the web page may change them later."""
        super().__init__()
        self.options = options

    def tick(self) -> tuple[int, float] | None:
        """Return how many users there are now, and how fast they come; None at the end."""
        at = self.get_run_time() / float(self.options.run_time)
        users = self.options.num_users or 1
        return (users_at(self.options.shape, at, users), min(users, FASTEST_SPAWN)) if at < 1 else None


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _options(parser: Any, **_other: object) -> None:
    add_options(parser)


@events.init.add_listener  # type: ignore[untyped-decorator]
def _prepare(environment: Any, web_ui: Any, **_other: object) -> None:
    """Prepare `locust -f`: check the options, shape the load, have a worker's reports carry what it recorded."""
    options = environment.parsed_options
    if not options:
        return  # `triptych loadtest` does it itself
    if web_ui:
        _check_forms(environment, web_ui)
    if not web_ui or options.autostart:
        try:
            _check(environment, options, environment.host or DetectionUser.host)
        except (TriptychError, OSError) as error:
            sys.exit(f"error: {error}")
    if isinstance(environment.runner, WorkerRunner):
        _record(environment)
    else:
        environment.events.test_start.add_listener(partial(_send_run_time, options))
    gevent.get_hub().loop.update_now()  # else --run-time counts from before all this was imported and read


def _check(environment: Any, options: Namespace, host: str) -> None:
    """Refuse what cannot be done before a user tries, and shape the load.

    Raises:
        TriptychError, OSError: the options do not go together, or the images cannot be read.
    """
    if not isinstance(environment.runner, WorkerRunner):  # which gets its options from its master
        profile = profile_of(options)
        check_address(host)
        over_time = profile.shape != "constant" and not profile.rate_per_s
        environment.shape_class = UsersOverTime(environment.parsed_options) if over_time else None
    if not isinstance(environment.runner, MasterRunner):  # which does without the images
        payloads_of(options)


def _check_forms(environment: Any, web_ui: Any) -> None:
    """Have a form of Locust's page refused with the reason where the load cannot be."""

    def check() -> Any:
        if request.endpoint != "locust.swarm" or "shape" not in request.form:
            return None  # Locust's dialog for a load that runs has no options of ours
        try:
            _check(environment, _options_of(request.form), request.form["host"])
        except (TriptychError, OSError, ValueError) as error:
            return jsonify({"success": False, "message": str(error), "host": environment.host})
        return None

    web_ui.app.before_request(check)


def _send_run_time(options: Namespace, **_other: object) -> None:
    """Give the run time an option of ours, which Locust sends to its workers."""
    options.load_seconds = options.run_time or 0


def _options_of(form: Mapping[str, str]) -> Namespace:
    """Return what the form on Locust's page says, as the command line's options."""
    return Namespace(
        images=form["images"],
        batch=int(form["batch"]),
        sizes=form["sizes"],
        rate=float(form["rate"]),
        poisson=form["poisson"] == "true",
        fps=float(form["fps"]),
        seed=int(form["seed"]),
        shape=form["shape"],
        run_time=parse_timespan(form["run_time"]) if form.get("run_time") else None,
    )


def _record(environment: Any) -> None:
    """Have a worker's reports carry what its users saw since the last one, for the web page."""
    latencies_ms: list[float] = []
    failures = 0

    def ended(response_time: float, exception: BaseException | None, **_other: object) -> None:
        nonlocal failures
        if exception is None:
            latencies_ms.append(response_time)
        else:
            failures += 1

    def add(client_id: str, data: dict[str, Any]) -> None:  # noqa: ARG001  # Locust names them
        nonlocal failures
        data["triptych"] = {"latencies_ms": latencies_ms.copy(), "failures": failures}
        latencies_ms.clear()
        failures = 0

    environment.events.request.add_listener(ended)
    environment.events.report_to_master.add_listener(add)

    def report(**_other: object) -> None:
        data: dict[str, Any] = {}
        environment.events.report_to_master.fire(client_id=environment.runner.client_id, data=data)
        environment.runner.send_message("stats", data)

    # Locust's workers report every three seconds, and after the last user not at once.
    environment.events.test_stop.add_listener(report)
