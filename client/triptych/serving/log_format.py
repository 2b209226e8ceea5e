"""How the lines of the service's log look that are ours: as Triton's own, or as JSON.

A line may carry `request_id`, what a client called its request, and other fields: give them as `extra`. What a line
has from outside cannot end it: control characters and quotes are escaped as JSON does it, and so is all that is not
ASCII.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import time
from datetime import datetime, timezone
from typing import TextIO

FORMAT_VARIABLE = "TRIPTYCH_LOG_FORMAT"
"""The environment variable that tells the models' processes how to write: `text` or `json`."""

FIELDS = ("request_id", "fault", "suppressed")
"""What a line may carry beside its message."""

LONGEST = 1000
"""Of a message or a field, so many characters are written."""


class TextFormatter(logging.Formatter):
    """Writes as Triton does: level and date, time, process, source, and the message in quotes."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        at = datetime.fromtimestamp(record.created, timezone.utc).strftime("%m%d %H:%M:%S.%f")
        fields = "".join(f" {name}={json.dumps(value)}" for name, value in _fields(record).items())
        message = json.dumps(_message(record))
        return f"{record.levelname[0]}{at} {record.process} {record.name.rpartition('.')[2]}] {message}{fields}"


class JsonFormatter(logging.Formatter):
    """Writes one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        at = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        document = {
            "time": at,
            "level": record.levelname.lower(),
            "source": record.name.rpartition(".")[2],
            "process": record.process,
            "message": _message(record),
        }
        return json.dumps(document | _fields(record))


def set_up_log(log_format: str | None = None, stream: TextIO | None = None) -> None:
    """Have the loggers under `triptych` write to a stream, standard error by default.

    Args:
        log_format: `json`, or all else for text; None: as the environment says.
        stream: where to.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    chosen = log_format or os.environ.get(FORMAT_VARIABLE)
    handler.setFormatter(JsonFormatter() if chosen == "json" else TextFormatter())
    logger = logging.getLogger("triptych")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO)


class FailureLog:
    """Writes failures of requests, each with its request's id: of each kind, one line in so many seconds at most.

    A flood of bad images neither fills the disk nor hides a failure of another kind. The next line of a kind says how
    many were left out before it.
    """

    PERIOD_S = 5.0

    def __init__(self, stage: str) -> None:
        """Write for a stage, in whose process this is."""
        set_up_log()
        self._logger = logging.getLogger(f"triptych.stages.{stage}")
        self._written: dict[str, float] = {}
        self._suppressed: dict[str, int] = {}

    def write(self, request_id: str, fault: str, message: str) -> None:
        """Write a failure, unless one of its kind was written a moment ago."""
        now = time.monotonic()
        if now - self._written.get(fault, -self.PERIOD_S) < self.PERIOD_S:
            self._suppressed[fault] = self._suppressed.get(fault, 0) + 1
            return
        self._written[fault] = now
        extra: dict[str, object] = {"request_id": request_id, "fault": fault}
        if suppressed := self._suppressed.pop(fault, 0):
            extra["suppressed"] = suppressed
        self._logger.warning("%s", message, extra=extra)


class LogStream(io.StringIO):
    """A text stream whose lines become lines of the log: for what prints, where the log is to be JSON."""

    def __init__(self, logger: str) -> None:
        """Write to the logger of that name."""
        super().__init__()
        self._logger = logging.getLogger(logger)
        self._rest = ""

    def write(self, text: str) -> int:
        """Log the lines that are complete."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in filter(None, map(str.strip, lines)):
            self._logger.info("%s", line)
        return len(text)


def _message(record: logging.LogRecord) -> str:
    message = record.getMessage()[:LONGEST]
    return f"{message}: {record.exc_info[1]!r}" if record.exc_info and record.exc_info[1] else message


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields = {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
    return {name: value[:LONGEST] if isinstance(value, str) else value for name, value in fields.items()}
