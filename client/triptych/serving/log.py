"""Reads Triton's log: why the server ended, why a model did not load, which models are still loading."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path

TAIL_BYTES = 65_536
"""How much of a log's end is read."""

STANDARD_ERROR = Path("-")
"""In place of a log's file: it goes to our standard error."""

_LINE = re.compile(r"^(?P<level>[IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ [^\]]+\] *(?P<message>.*)$")

# Never the reason of a failure: printed at every start (for want of a GPU, or while no stage is to be loaded), or a
# consequence of a model process's death.
_NO_REASON = re.compile(
    r"CudaDriverHelper|unable to create stream|pinned system memory|CUDA memory pool"
    r"|failed to poll model|models that are not available or ambiguous"
    r"|Stub process '[^']*' is not healthy"
)

# One failure passes through several layers, and each of them puts words of its own before the reason.
_LAYERS = re.compile(
    r"^(?:ERROR: Failed to create instance: |failed to load '[^']+' version \d+: [A-Z][A-Za-z ]*: "
    r"|Invalid argument: ensemble .* UNAVAILABLE state: [A-Z][A-Za-z ]*: )"
)

# Lines from the libraries and the models beneath Triton, which carry no level.
_BARE_ERROR = re.compile(
    r"^([A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt)\b"
    r"|terminate called|what\(\):|Signal \(|Fatal Python error|Segmentation fault|Aborted|Bus error)"
    r"|error while loading shared libraries"
)

_SOCKET_IN_USE = re.compile(r"failed to start \w+ service: .*Socket '[^']*:(?P<port>\d+)' already in use")
_FATAL_SIGNAL = re.compile(r"^Signal \((?P<number>6|7|11)\) received\.", re.MULTILINE)
_LOADING = re.compile(r"\bloading: (?P<model>[^\s\"]+):\d+")
_LOADED = re.compile(r"(?:successfully loaded|failed to load) '(?P<model>[^']+)'")

_FAILED_MODEL = re.compile(r"Model '(?P<model>[^']+)' loading failed with error: |load failed for model '([^']+)': ")
_STATE = re.compile(r"version \d+ is at UNAVAILABLE state: (?:[A-Z][A-Za-z ]*: )?")
_FRAME = re.compile(r"\n\s*At:\n\s*(?P<file>.+?)\((?P<line>\d+)\): ")


@dataclass(frozen=True)
class LoadFailure:
    """Why a model did not load.

    Attributes:
        model: the model that failed. Where an ensemble was asked for, it may be one of its models.
        reason: one line, such as the last line of a Python traceback.
        raised_at: `FILE, line N` where the exception was raised, or empty.
    """

    model: str
    reason: str
    raised_at: str = ""

    def __str__(self) -> str:
        return f"{self.model} did not load: {self.reason}" + (f" ({self.raised_at})" if self.raised_at else "")


def read_tail(path: Path, limit: int = TAIL_BYTES) -> str:
    """Return the last `limit` bytes of a log as text; empty if there is no such file."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - limit))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def error_lines(log: str, limit: int = 3) -> list[str]:
    """Return the last `limit` different error lines of a log, oldest first, without time stamps and source positions.

    Messages that span lines are cut to their first. Lines that are never the reason of a failure are left out.
    """
    errors: dict[str, None] = {}
    for line in log.splitlines():
        match = _LINE.match(line)
        message = _first_line(match["message"] if match else line)
        is_error = match["level"] in "EF" if match else _BARE_ERROR.search(message)
        if is_error and not _NO_REASON.search(message):
            message = _LAYERS.sub("", message).rstrip(";")
            errors.pop(message, None)
            errors[message] = None
    return list(errors)[-limit:]


def last_words(log: str) -> str:
    """Return `error_lines` as the end of a sentence, or empty: "; the last errors in its log: …"."""
    lines = error_lines(log)
    return f"; the last errors in its log: {' | '.join(lines)}" if lines else ""


def port_in_use(log: str) -> int | None:
    """Return the port that Triton could not open because another process holds it, if that is why it ended."""
    match = _SOCKET_IN_USE.search(log)
    return int(match["port"]) if match else None


def fatal_signal(log: str) -> str | None:
    """Return the name of the signal that ended the server, if the log says so."""
    match = _FATAL_SIGNAL.search(log)
    return signal_name(int(match["number"])) if match else None


def still_loading(log: str) -> list[str]:
    """Return the models that began to load and neither loaded nor failed, in the order in which they began."""
    pending: dict[str, None] = {}
    for line in log.splitlines():
        if match := _LOADING.search(line):
            pending[match["model"]] = None
        elif match := _LOADED.search(line):
            pending.pop(match["model"], None)
    return list(pending)


def load_failure(model: str, details: str) -> LoadFailure:
    """Read the error that Triton answers when `model` does not load, and name the model that is to blame."""
    reason = details
    for match in _FAILED_MODEL.finditer(details):
        model = match["model"] or match[2]
        reason = details[match.end() :]
    reason = _STATE.sub("", reason)
    frame = _FRAME.search(reason)
    if frame:
        reason = reason[: frame.start()]
    raised_at = f"{frame['file']}, line {frame['line']}" if frame else ""
    if "is not healthy" in reason:
        reason = "its process died"
    return LoadFailure(model, " ".join(reason.split()).rstrip(";."), raised_at)


def where(path: Path) -> str:
    """Return the end of a sentence that says where a whole log is."""
    return "the whole log is above" if path == STANDARD_ERROR else f"the whole log is {path}"


def signal_name(number: int) -> str:
    """Return the name of a signal, such as SIGKILL."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def describe_exit(returncode: int) -> str:
    """Describe the exit status of a process (negative: the signal that ended it) in words that follow "the server"."""
    if returncode >= 0:
        return f"ended with exit status {returncode}"
    name = signal_name(-returncode)
    if name == "SIGKILL":
        return "was killed (SIGKILL), by somebody or by the kernel for lack of memory"
    if name in {"SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE"}:
        return f"crashed ({name})"
    return f"was ended by {name}"


def describe_end(returncode: int, log: str, path: Path) -> str:
    """Say how the server ended, with the last errors of its log."""
    return f"the server {describe_exit(returncode)}{last_words(log)}; {where(path)}"


def describe_timeout(timeout_s: float, log: str, path: Path) -> str:
    """Say that the server was not ready in time, and which models it was still loading."""
    loading = still_loading(log)
    return (
        f"the server was not ready within {timeout_s:g} s"
        + (f" (still loading: {', '.join(loading)})" if loading else "")
        + f"{last_words(log)}; allow it longer with --ready-timeout-s; {where(path)}"
    )


def _first_line(message: str) -> str:
    """Undo the quoting of Triton's messages and keep their first line."""
    message = message.strip()
    if len(message) > 1 and message[0] == message[-1] == '"':
        message = message[1:-1].replace('\\"', '"').replace("\\n", "\n")
    return message.strip().partition("\n")[0].strip()
