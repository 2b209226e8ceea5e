"""`triptych sweep`: what points show together, the search for a rate, the file, and its command line."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer
from click.testing import Result
from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2, service_pb2
from typer.testing import CliRunner

from support.fake_server import LOST, FakeServer, Fault
from triptych.cli.sweep import parse_numbers, parse_settings, sweep
from triptych.errors import ContractError, ServerFault, TriptychError
from triptych.measure import sweep as sweeps
from triptych.measure.run_file import Environment, ImageSet, ServedDetector
from triptych.measure.sweep import Budget, Load, Point, Series, Setting, Sweep
from triptych.measure.sweep_runner import LoadTest, changed_settings
from triptych.report.terminal import sweep_table

app = typer.Typer()
app.command()(sweep)


def make_point(load: Load, answered_per_s: float, mean_ms: float, **changes: Any) -> Point:
    """A point whose p95 is twice its mean and whose p99 is three times it."""
    plain = Point(
        *(load.users, load.rate_per_s, None, None, answered_per_s),
        *(mean_ms, mean_ms, 2 * mean_ms, 3 * mean_ms),
        *(0, 1.0, {"detector": mean_ms * 0.75, "network and client": mean_ms * 0.25}, 0.1),
    )
    return replace(plain, **changes)


def users(*points: tuple[int, float, float]) -> list[Point]:
    """Points of (users, answered/s, ms)."""
    return [make_point(Load(count), answered, ms) for count, answered, ms in points]


def rates(*points: tuple[float, float]) -> list[Point]:
    """Points of (rate, ms), all of it answered."""
    return [make_point(Load(rate_per_s=rate), rate, ms) for rate, ms in points]


SERVICE_MS = 20.0
"""Of the simulated server, which can answer 50 requests a second."""


def simulated(load: Load) -> Point:
    """An M/M/1 queue: the mean time in it is the service time over 1 - utilisation, exponentially distributed."""
    assert load.rate_per_s
    utilisation = load.rate_per_s * SERVICE_MS / 1000
    if utilisation >= 1:
        return make_point(load, 1000 / SERVICE_MS, 5000)
    mean_ms = SERVICE_MS / (1 - utilisation)
    return make_point(load, load.rate_per_s, mean_ms, p50_ms=mean_ms * math.log(2), p95_ms=mean_ms * math.log(20))


def explored(loads: list[float], budget: Budget | None) -> list[Point]:
    measured = []

    def measure(load: Load) -> Point:
        measured.append(simulated(load))
        return measured[-1]

    sweeps.explore([Load(rate_per_s=rate) for rate in loads], measure, budget)
    return measured


# --- the knee, and the most within a budget --------------------------------------------------------------------------


def test_the_knee_of_a_queue_is_at_half_of_what_it_can_answer():
    series = Series.of("", explored([5, 10, 15, 20, 25, 30, 35, 40, 45, 60], None), None)
    assert series.knee is not None
    assert series.points[series.knee].rate_per_s == 25


@pytest.mark.parametrize("points", [[], users((1, 10, 100)), users((1, 0, 0), (2, 0, 0))])
def test_there_is_no_knee_without_two_points_of_which_one_was_answered(points):
    assert sweeps.knee(points) is None
    assert sweeps.knee_sentence(Series("", points, None, None)) == ""


@pytest.mark.parametrize("budget_ms", [70, 100, 200, 600])
@pytest.mark.parametrize("loads", [[1, 49], [5, 20, 80, 160]])
def test_the_search_finds_the_highest_rate_within_the_budget(loads, budget_ms):
    budget = Budget(budget_ms, "p95")
    points = explored(loads, budget)
    assert len(points) <= len(loads) + sweeps.MOST_STEPS
    series = Series.of("", points, budget)
    true = (1 - SERVICE_MS * math.log(20) / budget_ms) * 1000 / SERVICE_MS
    if true < loads[0]:
        assert series.best_within_budget is None
        assert len(points) == len(loads), "nothing to halve"
    elif true > loads[-1]:
        assert series.best_within_budget == len(loads) - 1
        assert len(points) == len(loads)
    else:
        assert series.best_within_budget is not None
        best = series.points[series.best_within_budget].rate_per_s
        # Six halvings of the widest gap, of a factor 49, leave 6%; of a factor 4, less than 5.
        assert true / 1.07 < best <= true


def test_without_a_budget_only_the_rates_that_were_asked_for_are_measured():
    assert [point.rate_per_s for point in explored([10, 20, 40, 80], None)] == [10, 20, 40, 80]


def test_users_are_never_halved():
    loads = [Load(1), Load(16)]
    measured = []
    sweeps.explore(loads, lambda load: measured.append(load) or make_point(load, 10, load.users), Budget(4, "p50"))
    assert measured == loads


def test_a_rate_that_is_not_kept_up_with_is_beyond_the_budget_however_short_the_answers_take():
    points = [*rates((10, 5)), make_point(Load(rate_per_s=20), 15, 5)]
    assert sweeps.best_within(points, Budget(100, "p95")) == 0
    assert sweeps.next_rate(points, Budget(100, "p95")) == 14.1


@pytest.mark.parametrize(
    ("point", "said"),
    [
        (make_point(Load(2), 10, 50), ""),
        (make_point(Load(2), 10, 50.5), "it is 101.0 ms"),
        (make_point(Load(2), 10, 5, failures=1), "1 request failed"),
        (make_point(Load(rate_per_s=20), 17.5, 5), "17.5 requests/s are answered"),
        (make_point(Load(2), 0, 0), "it is 0.0 ms"),
    ],
)
def test_what_breaks_a_budget(point, said):
    assert Budget(100, "p95").broken_by(point) == said


# --- sentences -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (
            users((1, 20, 50), (4, 49, 80), (8, 50, 152)),
            "the knee is at 4 users: 49.0 requests/s at p50 80.0 ms; 8 users bring 2% more and wait 1.9x as long",
        ),
        (
            users((1, 20, 50), (2, 19, 100)),
            "the knee is at 1 user: 20.0 requests/s at p50 50.0 ms; 2 users bring 5% less and wait 2.0x as long",
        ),
        (users((1, 20, 50), (2, 39, 51)), "the knee is at 2 users or beyond: 39.0 requests/s at p50 51.0 ms"),
        (
            rates((10, 30), (20, 90)),
            "the knee is at a rate of 10/s or below: 10.0 requests/s at p50 30.0 ms; "
            "a rate of 20/s brings 100% more and waits 3.0x as long",
        ),
    ],
)
def test_the_knee_in_words(points, said):
    assert sweeps.knee_sentence(Series.of("", points, None)) == said


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (
            rates((40, 20), (47, 50), (49, 90)),
            "the highest rate within p95 <= 100 ms is 47 requests/s (at a rate of 49/s it is 180.0 ms)",
        ),
        (
            users((1, 20, 50), (4, 49, 50), (8, 50, 160)),
            "the highest concurrency within p95 <= 100 ms is 4 users: 49.0 requests/s (at 8 users it is 320.0 ms)",
        ),
        (
            rates((10, 20), (20, 30)),
            "every rate up to the highest keeps p95 <= 100 ms, 20 requests/s; the limit is beyond",
        ),
        (users((1, 20, 51), (2, 20, 99)), "no concurrency keeps p95 <= 100 ms: at 1 user it is 102.0 ms"),
    ],
)
def test_the_budget_in_words(points, said):
    budget = Budget(100, "p95")
    assert sweeps.budget_sentence(Series.of("", points, budget), budget) == said


def test_settings_are_compared_with_the_first_and_a_busy_generator_is_told():
    budget = Budget(100, "p95")
    one = Series.of("1 instance", users((1, 20, 40), (4, 40, 100)), budget)
    two = Series.of("2 instances", users((1, 20, 44), (4, 78, 50)), budget)
    two.points[1] = replace(two.points[1], mean_batch=1.5, busiest=0.91)
    said = sweeps.sentences([one, two], budget)
    assert [sentence.split(": ")[0] for sentence in said[:4]] == ["1 instance"] * 2 + ["2 instances"] * 2
    assert said[4] == (
        "2 instances against 1 instance: 1.95x the requests/s at most (78.0 and 40.0); 78.0 and 20.0 within "
        "p95 <= 100 ms; p50 44.0 and 40.0 ms at 1 user, 50.0 and 100.0 ms at 4 users; mean batch 1.5 and 1.0 there"
    )
    assert said[5].startswith("the load generator used 91% of a core at 4 users")
    assert len(said) == 6
    assert not any("1 instance" in sentence for sentence in sweeps.sentences([one], budget)), "it is the only one"


def test_nothing_answered_is_said_and_not_divided_by():
    dead = Series.of("a", [make_point(load, 0, 0, failures=5) for load in (Load(1), Load(2))], Budget(10, "p50"))
    said = sweeps.sentences([dead, dead], Budget(10, "p50"))
    assert "a: no concurrency keeps p50 <= 10 ms: at 1 user 5 requests failed" in said
    assert sweep_table(dead).row_count == 2


# --- settings of the server ------------------------------------------------------------------------------------------


def test_a_setting_changes_what_it_names_and_nothing_else():
    config = model_config_pb2.ModelConfig(name="detector", max_batch_size=16)
    config.instance_group.add(count=3)
    assert Setting().applied(config) == config
    two = Setting(2).applied(config)
    assert (two.instance_group[0].count, config.instance_group[0].count) == (2, 3)
    assert not two.HasField("dynamic_batching")
    at_once = Setting(None, 0).applied(config)
    assert at_once.HasField("dynamic_batching"), "a delay of 0 is batching all the same"
    assert Setting(None, 500).applied(at_once).dynamic_batching.max_queue_delay_microseconds == 500


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (Setting(), "as served"),
        (Setting(1), "1 instance"),
        (Setting(2, 0), "2 instances, batching delay 0 µs"),
    ],
)
def test_a_setting_in_words(setting, said):
    assert str(setting) == said


class ControlledServer(FakeServer):
    """It takes configurations, as a Triton with explicit model control does, but for what `faults` says in turn."""

    def __init__(self, *faults: Fault | None) -> None:
        super().__init__()
        self.faults = list(faults)
        self.loaded = [model_config_pb2.ModelConfig(name="detector", instance_group=[{"count": 3}])]

    def ModelConfig(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        response = service_pb2.ModelConfigResponse()
        response.config.CopyFrom(self.loaded[-1])
        return response

    def RepositoryModelLoad(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        fault = self.faults.pop(0) if self.faults else None
        if fault:
            context.abort(fault.code, fault.details)
        text = request.parameters["config"].string_param
        self.loaded.append(json_format.Parse(text, model_config_pb2.ModelConfig()))
        return service_pb2.RepositoryModelLoadResponse()


@pytest.fixture
def controlled() -> Iterator[Callable[..., ControlledServer]]:
    """Start such a server with these faults."""
    with ExitStack() as stack:

        def begin(*faults: Fault | None) -> ControlledServer:
            fake = ControlledServer(*faults)
            fake.start()
            stack.callback(fake.stop)
            return fake

        yield begin


def load_test(address: str) -> LoadTest:
    return LoadTest(address, Path(), 1, 1, 1, Path())


@pytest.mark.parametrize("end", [None, KeyboardInterrupt(), ContractError()])
def test_the_server_has_its_own_settings_back_however_it_ends(controlled, end):
    server = controlled()
    loadtest = load_test(server.address)
    with suppress(KeyboardInterrupt, ContractError), changed_settings(loadtest) as change:
        change(Setting())
        assert len(server.loaded) == 1, "nothing to change"
        change(Setting(1))
        change(Setting(2, 100))
        if end:
            raise end
    assert [config.instance_group[0].count for config in server.loaded] == [3, 1, 2, 3]
    assert server.loaded[-1] == server.loaded[0] == loadtest.original


def change_one(server: ControlledServer) -> None:
    with changed_settings(load_test(server.address)) as change:
        change(Setting(1))


NO_MEMORY = Fault(grpc.StatusCode.INTERNAL, "no memory")


def test_a_server_that_lets_nothing_be_changed_is_one_sentence(controlled):
    # as Triton says it
    refusal = Fault(grpc.StatusCode.UNAVAILABLE, "explicit model load / unload is not allowed if polling is enabled")
    with pytest.raises(ContractError, match="start it with `triptych serve` or with --model-control-mode=explicit"):
        change_one(controlled(refusal, refusal))


def test_a_setting_that_cannot_be_loaded_is_the_server_s_sentence_and_undone(controlled):
    server = controlled(NO_MEMORY)
    with pytest.raises(ServerFault, match="no memory"):
        change_one(server)
    assert server.loaded == [server.loaded[0]] * 2


def test_settings_that_are_not_taken_back_are_told_unless_the_server_is_gone(controlled):
    with pytest.raises(ContractError, match=r"does not take its own settings back \(no memory\); restart the server"):
        change_one(controlled(None, NO_MEMORY))
    change_one(controlled(None, LOST))


# --- the file --------------------------------------------------------------------------------------------------------


@pytest.fixture
def result() -> Sweep:
    environment = Environment("host:1", "a CPU", 2, [], {"python": "3.11"}, ServedDetector(1, "python", 2, 16))
    series = [Series.of("1 instance", users((1, 20, 50), (2, 30, 60)), Budget(110, "p95"))]
    return Sweep(
        "2026-01-02T03:04:05+00:00", environment, ImageSet(1, 2, "3"), 110, "p95", series, ["words"], ["triptych"]
    )


def test_what_is_written_comes_back(result, tmp_path):
    sweeps.write(tmp_path / "sweep.json", result)
    assert sweeps.read(tmp_path / "sweep.json") == result
    assert list(tmp_path.iterdir()) == [tmp_path / "sweep.json"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not a sweep that can be read"),
        ('{"version": 99, "series": []}', "must be a sweep of version 1, but its version is 99"),
        ("[]", "must be a sweep of version 1"),
        ('{"version": 1, "series": []}', "is not a whole sweep"),
    ],
)
def test_what_is_no_sweep_is_one_sentence(tmp_path, text, said):
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(ContractError, match=said):
        sweeps.read(tmp_path / "sweep.json")


def test_a_sweep_that_cannot_be_written_is_one_sentence(result, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ContractError, match="cannot be written"):
        sweeps.write(tmp_path / "file" / "sweep.json", result)


# --- the command line ------------------------------------------------------------------------------------------------


def test_lists_are_sorted_and_hold_each_number_once():
    assert parse_numbers("--users", "8, 1,2,8", int, 1) == [1, 2, 8]
    assert parse_numbers("--rates", "2.5", float, 0.1) == [2.5]
    assert parse_settings("--instances", "2,served,1", 1) == [None, 1, 2]
    assert parse_settings("--instances", "served", 1) == [None]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    directory = tmp_path / "images"
    directory.mkdir()
    (directory / "a.jpg").write_bytes(b"x")
    return directory


def run(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "120"}).invoke(app, [*map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--users", "1,x"), "--users must be whole numbers from 1 on, with commas between them, but is '1,x'"),
        (("--users", ""), "--users must be whole numbers from 1 on"),
        (("--users", "0"), "--users must be whole numbers from 1 on"),
        (("--rates", "10,,20"), "--rates must be numbers from 0.1 on"),
        (("--rates", "nan"), "--rates must be"),
        (("--rates", "inf"), "--rates must be"),
        (("--instances", "served,0"), "--instances must be whole numbers from 1 on"),
        (("--batching-delay-us", "-1"), "--batching-delay-us must be whole numbers from 0 on"),
        (("--users", "1", "--rates", "1"), "--users and --rates are two sweeps"),
        (("--at", "p90"), "--at must be one of p50, p95, p99, but is 'p90'"),
        (("--address", "nowhere"), "nowhere"),
    ],
)
def test_options_that_make_no_sense_are_one_sentence(images, arguments, said):
    done = run("--images", images, *arguments)
    assert isinstance(done.exception, TriptychError)
    assert said in str(done.exception)


def test_no_images_and_no_server_are_one_sentence(tmp_path, images, nobody):
    assert "there are no images in" in str(run("--images", tmp_path).exception)
    for change in ((), ("--instances", 1)):
        done = run("--images", images, "--address", nobody, "--users", 1, "--warmup", 0, *change)
        assert isinstance(done.exception, TriptychError), done.exception
        assert f"no server answers at {nobody}" in str(done.exception)


def when(happened: Callable[[], bool], act: Callable[[], None]) -> threading.Thread:
    """Do it as soon as that happened."""

    def wait() -> None:
        deadline = time.monotonic() + 60
        while not happened() and time.monotonic() < deadline:
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_lost_server_ends_the_sweep_and_what_was_measured_is_kept(server: FakeServer, images, tmp_path):
    out, runs = tmp_path / "sweep.json", tmp_path / "runs"
    lost = when((runs / "as-served-1-user.json").exists, server.stop)
    done = run(
        *("--images", images, "--address", server.address, "--users", "1,2,4", "--duration", 0.5, "--warmup", 0.1),
        *("--out", out, "--keep-runs", runs),
    )
    lost.join()
    assert isinstance(done.exception, TriptychError), done.output
    assert f"no server answers at {server.address}" in str(done.exception)
    (series,) = sweeps.read(out).series
    (point,) = series.points
    assert point.users == 1
    assert point.answered_per_s > 5
    assert "as served" in done.output


def test_failures_are_shown_and_end_nothing_but_keep_no_budget(server: FakeServer, images, tmp_path):
    (images / "a.jpg").write_bytes(b"bad")  # which the fake server refuses
    done = run(
        *("--images", images, "--address", server.address, "--users", "1,2", "--duration", 0.5, "--warmup", 0),
        *("--budget-ms", 60000, "--out", tmp_path / "sweep.json"),
    )
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit), done.exception
    data = json.loads((tmp_path / "sweep.json").read_text())
    points = data["series"][0]["points"]
    assert [point["users"] for point in points] == [1, 2]
    assert all(point["failures"] > 0 and point["answered_per_s"] == 0 for point in points)
    assert f"no concurrency keeps p95 <= 60000 ms: at 1 user {points[0]['failures']} requests failed" in done.output
