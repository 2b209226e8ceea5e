"""A tab in Locust's web page: where the time of the last seconds went, by the server's own counters.

The same as JSON is at `/triptych`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import gevent
from flask import Response, jsonify, request
from locust import events
from locust.runners import MasterRunner

from triptych import DetectionClient, attribution
from triptych.attribution import NETWORK, OVERHEAD
from triptych.contract import DETECTION, STAGES
from triptych.errors import TriptychError
from triptych.stats import PARTS, Counters, Snapshot, Window

POLL_S = 2.0
"""How often the server's counters are read; Locust's page asks for news as often."""

POLLS = 6
"""So many of the latest are kept: the page shows what was between the first and the last, about ten seconds."""

TIMEOUT_S = 2.0
"""How long the server may take to tell its counters."""

TAB = {"key": "triptych", "title": "Where the time goes"}

COLUMNS = {
    "stage": "Stage",
    "rate": "Requests/s",
    **{part: f"{part.capitalize()} (ms)" for part in PARTS},
    "share": "Share",
    "batch": "Mean batch",
    "failures": "# Fails",
    "note": "",
}


def rows(window: Window, failures: int) -> list[dict[str, Any]]:
    """The window as a table: a row for each stage, for what is between and around them, and for the client.

    Args:
        window: with at least one answer.
        failures: how many requests failed by the client's count.
    """
    mean = attribution.from_statistics(window).breakdowns["mean"]
    owners = mean.owners()
    table: list[dict[str, Any]] = []
    for stage in STAGES:
        counters = window.counters.get(stage.name, Counters())
        table.append(
            {
                "stage": stage.name,
                "rate": counters.requests / window.duration_s,
                **{part: counters.mean_ms(part) for part in PARTS},
                "batch": counters.inferences / counters.executions if counters.executions else 0.0,
                "failures": counters.failures,
            }
        )
    table += [{"stage": name, "total": owners[name]} for name in (OVERHEAD, NETWORK)]
    table += [{"stage": "client, end to end", "total": mean.total_ms, "failures": failures}]
    table[-1]["rate"] = len(window.latencies_ms) / window.duration_s
    for row in table:
        row["share"] = row["total"] / mean.total_ms
        if row["stage"] == max(owners, key=lambda name: owners[name]):
            row["note"] = attribution.owner_sentence(mean, f"mean of the last {window.duration_s:.0f} s")
    return table


@dataclass
class Live:
    """The last seconds of a load.

    Attributes:
        polls: when, on the clock of `time.monotonic`, the server's counters, and what the client has seen since the
            poll before: latencies in milliseconds of the answers, and how many requests failed.
        trouble: why there is nothing to show; empty if there is.
    """

    polls: deque[tuple[float, Snapshot, list[float], int]] = field(default_factory=lambda: deque(maxlen=POLLS))
    trouble: str = "the server has not been asked yet"
    _latencies_ms: list[float] = field(default_factory=list)
    _failures: int = 0

    def count(self, latencies_ms: Iterable[float], failures: int) -> None:
        """Take what clients saw."""
        self._latencies_ms += latencies_ms
        self._failures += failures

    def poll(self, at_s: float, counters: Snapshot | TriptychError) -> None:
        """Take what the server says, or why it does not."""
        latencies_ms, failures = self._latencies_ms, self._failures
        self._latencies_ms, self._failures = [], 0
        if isinstance(counters, TriptychError):
            self.polls.clear()
            self.trouble = str(counters)
            return
        if self.polls and _requests(counters) < _requests(self.polls[-1][1]):
            self.polls.clear()  # another server, that began to count anew
        self.polls.append((at_s, counters, latencies_ms, failures))
        window = self.window
        seen = window.latencies_ms and _requests(window.counters)
        self.trouble = "" if seen else f"no request was answered in the last {window.duration_s:.0f} s"

    @property
    def window(self) -> Window:
        """What is between the first poll and the last; at least one."""
        (first_s, before, *_), *later = self.polls
        last_s, after, *_ = self.polls[-1]
        latencies_ms = [latency_ms for _, _, latencies_ms, _ in later for latency_ms in latencies_ms]
        return Window.between(before, after, latencies_ms, last_s - first_s)

    def rows(self) -> list[dict[str, Any]]:
        """The table; while there is none, why."""
        if self.trouble:
            return [{"stage": "–", "note": self.trouble}]
        return rows(self.window, sum(failures for *_, failures in list(self.polls)[1:]))


def _requests(counters: Snapshot) -> int:
    return counters[DETECTION.name].requests if DETECTION.name in counters else 0


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row as text, since Locust's table can but round numbers, and a name in one line."""
    texts = {key: f"{value:.2f}" if isinstance(value, float) else value for key, value in row.items()}
    texts["stage"] = row["stage"].replace(" ", "\N{NO-BREAK SPACE}")
    if "share" in row:
        texts["share"] = f"{round(100 * row['share'])}%"
    return {key: texts.get(key, "") for key in COLUMNS}


@events.init.add_listener  # type: ignore[untyped-decorator]
def _add_tab(environment: Any, web_ui: Any, **_other: object) -> None:
    if not web_ui:
        return
    live = Live()
    if isinstance(environment.runner, MasterRunner):

        def reported(data: dict[str, Any], **_other: object) -> None:
            seen = data["triptych"]
            live.count((latency_ms for latency_ms, _ in seen["answers"].values()), len(seen["failed_at_s"]))

        environment.events.worker_report.add_listener(reported)
    else:

        def ended(response_time: float, exception: BaseException | None, **_other: object) -> None:
            live.count([] if exception else [response_time], int(exception is not None))

        environment.events.request.add_listener(ended)

    def poll() -> None:
        client: DetectionClient | None = None
        while True:
            address = environment.host or environment.user_classes[0].host
            try:
                if client is None or client.address != address:
                    client = DetectionClient(address, retries=0, timeout_s=TIMEOUT_S)
                live.poll(time.monotonic(), client.statistics())
            except TriptychError as error:
                live.poll(time.monotonic(), error)
            gevent.sleep(POLL_S)

    gevent.spawn(poll)
    web_ui.template_args |= {
        "extended_tabs": [TAB],
        "extended_tables": [
            {"key": TAB["key"], "structure": [{"key": key, "title": title} for key, title in COLUMNS.items()]}
        ],
    }

    @web_ui.app.after_request  # type: ignore[untyped-decorator]
    def add_rows(response: Response) -> Response:
        if request.endpoint == "locust.request_stats" and response.is_json:
            # Locust's table sorts by `name` until somebody asks for another order; this keeps ours.
            shown = [{"name": number, **_shown(row)} for number, row in enumerate(live.rows())]
            stats = {**response.get_json(), "extended_stats": [{"key": TAB["key"], "data": shown}]}
            response.set_data(web_ui.app.json.dumps(stats))
        return response

    @web_ui.app.route(f"{environment.parsed_options.web_base_path}/triptych")  # type: ignore[untyped-decorator]
    @web_ui.auth_required_if_enabled  # type: ignore[untyped-decorator]
    def triptych() -> Response:
        return jsonify({"rows": [] if live.trouble else live.rows(), "trouble": live.trouble})
