"""`triptych loadtest`: its options, how it starts again for Locust, and what it prints."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import partial

import pytest
from rich.console import Console

from support.commands import invoke
from support.pages import make_run
from triptych.cli.console import USAGE
from triptych.cli.loadtest import loadtest, print_run
from triptych.measure.run_file import Failure, Run

run = partial(invoke, loadtest, columns=400)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--poisson"], "poisson needs a rate"),
        (["--rate", "2", "--fps", "3"], "one of them 0"),
        (["--rate", "-1"], "must be at least 0"),
        (["--users", "0"], "must be at least 1"),
        (["--processes", "0"], "must be at least 1"),
        (["--intervals", "0"], "must be at least 1"),
        (["--batch", "17"], "a batch must be of 1 to 16 images"),
        (["--sizes", "large"], "large"),
        (["--sizes", "9999x9999"], "9999x9999"),
        (["--shape", "wave"], "wave"),
        (["--duration-s", "0"], "must be above 0 seconds"),
        (["--warmup-s", "-1"], "the warm-up at least 0"),
        (["--address", "http://127.0.0.1:8001"], "the address must be host:port"),
        (["--budget-ms", "0"], "--budget-ms"),
        (["--out", "run.html"], "run.json"),
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_starts(arguments: list[str], message: str) -> None:
    result = run("--images", "DIR", *arguments)
    assert result.exit_code == USAGE
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_images_are_required() -> None:
    result = run()
    assert result.exit_code == USAGE
    assert "--images" in result.stderr


def test_help_names_every_group() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for heading in ("Load", "Measurement", "Limits"):
        assert f"─ {heading} " in result.stdout


def printed(shown: Run, budget_ms: float | None = None) -> str:
    """Return what a terminal shows of a run."""
    console = Console(file=io.StringIO(), width=120, soft_wrap=True, highlight=False)
    print_run(shown, budget_ms, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_run_on_the_terminal() -> None:
    text = printed(make_run(), budget_ms=50)
    assert text.startswith("400 requests in 10.0 s: 40.0 requests/s, client p50 ")
    for line in (
        "  2 images a request: 80.0 images/s\n",
        "Where the time goes (ms, 400 requests, from the server's traces)",
        "detector owns",
        "within the budget of 50 ms at p95, 31.6 ms to spare",
        "the detector ran 400 times, on 1.8 images on average",
    ):
        assert line in text, line


def test_means_warnings_and_failures_on_the_terminal() -> None:
    means = make_run(source="statistics")
    assert "Means only, from the server's statistics" in printed(means)
    busy = replace(means, client=replace(means.client, busiest=0.93, failures={"ImageError": Failure(2, "[/red] x")}))
    text = printed(busy)
    assert "the load generator used 93% of a core" in text
    assert "2 failed: ImageError: [/red] x\n" in text


def test_requests_of_several_kinds_on_the_terminal() -> None:
    run = make_run()
    kinds = dict.fromkeys(("detect 64x48 x2", "detect 32x32 x2"), run.client.latencies)
    text = printed(replace(run, client=replace(run.client, by_request=kinds)))
    assert "  detect 32x32 x2: 400 requests, p50 " in text
    assert text.index("detect 32x32 x2") < text.index("detect 64x48 x2")


def test_what_the_percentiles_leave_out_stands_below_them() -> None:
    run = make_run()
    text = printed(replace(run, client=replace(run.client, unsent=2059)))
    assert text.splitlines()[1] == (
        "  of 2,459 requests that were due, the latencies leave out 2,059 that were due and were not sent"
    )
    assert "leave out" not in printed(run)
