"""A tab in Locust's web page: where the time of the last seconds went, by the server's own counters.

The same as JSON is at `/triptych`.
"""

from __future__ import annotations

import re
import time
from typing import Any

import gevent
from flask import Response, jsonify, request
from locust import events
from locust.runners import MasterRunner

from triptych import DetectionClient
from triptych.errors import TriptychError
from triptych.measure.traces import PARTS
from triptych_loadtest.live import Live
from triptych_loadtest.locust_options import credentials_of

POLL_S = 2.0
"""How often the server's counters are read; Locust's page refreshes as often."""

TIMEOUT_S = 2.0
"""How long the server may take to send its counters."""

TAB = {"key": "triptych", "title": "Where the time goes"}

COLUMNS = {
    "stage": "Stage",
    "rate": "Requests/s",
    **{part: f"{part.capitalize()} (ms)" for part in (*PARTS, "total")},
    "share": "Share",
    "batch": "Mean batch",
    "failures": "# Fails",
    "note": "In the last seconds",
}


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as text: Locust's table would round the numbers, and on a phone break at every space."""
    texts = {key: f"{value:.2f}" if isinstance(value, float) else value for key, value in row.items()}
    if "share" in row:
        texts["share"] = f"{round(100 * row['share'])}%"
        texts |= {key: re.sub("(?<![:,]) ", "\N{NO-BREAK SPACE}", row.get(key, "")) for key in ("stage", "note")}
    return {key: texts.get(key, "") for key in COLUMNS}


@events.init.add_listener  # type: ignore[untyped-decorator]
def _add_tab(environment: Any, web_ui: Any, **_other: object) -> None:
    if not web_ui:
        return
    live = Live()
    if isinstance(environment.runner, MasterRunner):

        def reported(data: dict[str, Any], **_other: object) -> None:
            seen = data["triptych"]
            live.count(seen["latencies_ms"], seen["failures"])

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
                    credentials = credentials_of(environment.parsed_options)
                    client = DetectionClient(address, retries=0, timeout_s=TIMEOUT_S, credentials=credentials)
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
        return jsonify({"rows": [] if live.why_empty else live.rows(), "why_empty": live.why_empty})
