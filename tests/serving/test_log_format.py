"""The lines of the log that are ours."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from rich.console import Console

from triptych.serving import log as server_log
from triptych.serving import log_format
from triptych.serving.log_format import FORMAT_VARIABLE, FailureLog, LogStream, set_up_log

NASTY = 'order-7"\n{"level":"error"}\u2028\x1b[31m'


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    logger = logging.getLogger("triptych")
    before = (logger.handlers[:], logger.propagate, logger.level)
    yield
    logger.handlers[:], logger.propagate, level = before
    logger.setLevel(level)


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> tuple[FailureLog, io.StringIO]:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv(FORMAT_VARIABLE, "json")
    return FailureLog("preprocess"), stream


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_failure_has_the_id_of_its_request(failures: tuple[FailureLog, io.StringIO]) -> None:
    log, stream = failures
    log.write(NASTY, "damaged", "the image is damaged")
    [line] = lines(stream)
    assert line["request_id"] == NASTY
    assert (line["fault"], line["level"], line["source"]) == ("damaged", "warning", "preprocess")
    assert stream.getvalue().isascii()


def test_a_flood_of_one_kind_hides_no_other(
    failures: tuple[FailureLog, io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, stream = failures
    for number in range(100):
        log.write(str(number), "damaged", "the image is damaged")
    log.write("x", "crash", "the decoder died")
    assert [line["fault"] for line in lines(stream)] == ["damaged", "crash"]
    monkeypatch.setattr(FailureLog, "PERIOD_S", 0)
    log.write("y", "damaged", "the image is damaged")
    assert lines(stream)[-1]["suppressed"] == 99


def test_text_looks_like_triton_s_own_and_is_no_reason_for_a_server_s_end() -> None:
    stream = io.StringIO()
    set_up_log("text", stream)
    extra = {"request_id": NASTY, "fault": "request"}
    logging.getLogger("triptych.stages.postprocess").warning("it is\nwrong", extra=extra)
    [line] = stream.getvalue().splitlines()
    assert server_log._LINE.match(line)
    assert r"it is\nwrong" in line
    assert json.dumps(NASTY) in line
    assert server_log.error_lines(stream.getvalue()) == []


def test_an_exception_is_one_line_and_long_text_is_cut() -> None:
    stream = io.StringIO()
    set_up_log("json", stream)
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("triptych.x").exception("failed")
    logging.getLogger("triptych.x").warning("a" * 5000, extra={"request_id": "b" * 5000})
    first, second = lines(stream)
    assert first["message"] == "failed: ValueError('why')"
    assert len(str(second["message"])) == len(str(second["request_id"])) == log_format.LONGEST


def test_what_prints_can_go_to_the_log() -> None:
    stream = io.StringIO()
    set_up_log("json", stream)
    Console(file=LogStream("triptych.serve"), soft_wrap=True).print("ready in [bold]2 s[/bold]\nand serving")
    assert [(line["message"], line["level"]) for line in lines(stream)] == [
        ("ready in 2 s", "info"),
        ("and serving", "info"),
    ]
