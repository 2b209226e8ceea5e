"""Comparisons of runs whose truth is known, since they are made up."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from scipy import stats
from typer.testing import CliRunner

from triptych.cli import compare as command
from triptych.contract import STAGES
from triptych.errors import ContractError
from triptych.measure import comparison, run_file
from triptych.measure.attribution import NETWORK, OVERHEAD, Attribution, Breakdown
from triptych.measure.comparison import Ratio, compare, differences, pool
from triptych.measure.histogram import Histogram
from triptych.measure.intervals import Interval
from triptych.measure.run_file import ClientSide, Environment, Failure, ImageSet, Run, ServedDetector, Workload
from triptych.measure.traces import PARTS
from triptych.wire.statistics import Counters

STAGE_MS = {"preprocess": 4.0, "detector": 80.0, "postprocess": 12.0}
OTHER_MS = {OVERHEAD: 1.0, NETWORK: 3.0}
INTERVALS = 10


def made_up(
    seed: int = 0,
    noise: float = 0.1,
    requests: int = 200,
    slower: float = 1.0,
    queue_ms: float = 0.0,
    intervals: int = INTERVALS,
    **stage_ms: float,
) -> Run:
    """A closed loop of one user whose requests take what STAGE_MS says, or `stage_ms`; each owner varies by itself.

    `noise` is the standard deviation of the logarithm of each owner's time; `slower` multiplies all of them.
    """
    rng = np.random.default_rng(seed)
    typical = {**STAGE_MS, **stage_ms, **OTHER_MS}
    columns = {
        owner: slower * milliseconds * np.exp(rng.normal(-(noise**2) / 2, noise, requests))
        for owner, milliseconds in typical.items()
    }
    queue = np.full(requests, queue_ms)
    total = sum(columns.values()) + queue
    part = np.minimum(np.cumsum(total) / total.sum() * intervals, intervals - 1).astype(int)
    seconds = float(total.sum()) / 1000

    def owners_ms(rows: np.ndarray) -> dict[str, float]:
        means = {owner: float(values[rows].mean()) for owner, values in columns.items()}
        return {**means, "detector": means["detector"] + queue_ms}

    def interval(number: int) -> Interval:
        rows = part == number
        p50, p95, p99 = map(float, np.percentile(total[rows], (50, 95, 99)))
        length = seconds / intervals
        return Interval(
            number * length, length, int(rows.sum()), 0, float(total[rows].mean()), p50, p95, p99, owners_ms(rows)
        )

    everything = np.ones(requests, dtype=bool)
    means = owners_ms(everything)
    stages = {
        stage.name: {
            **dict.fromkeys(PARTS, 0.0),
            "infer": means[stage.name] - (queue_ms if stage.name == "detector" else 0),
        }
        for stage in STAGES
    }
    stages["detector"]["queue"] = queue_ms
    return Run(
        started="2026-01-02T03:04:05+00:00",
        workload=Workload("closed", 1, None, "constant", 1, [], 1, 1.0, seconds, ImageSet.of([b"image"])),
        environment=Environment(
            "127.0.0.1:8001", "a CPU", 2, [], {"triton": "2.51.0"}, ServedDetector(1, "python", 2, 16)
        ),
        client=ClientSide(Histogram(total), {}, {}, seconds, 1.0, 0.1),
        server={"detector": Counters(requests=requests)},
        attribution=Attribution(
            "traces", requests, {"mean": Breakdown(float(total.mean()), means[NETWORK], means[OVERHEAD], stages)}
        ),
        intervals=[interval(number) for number in range(intervals)],
        command=["python", "loadtest"],
    )


def with_workload(run: Run, **changes: object) -> Run:
    return replace(run, workload=replace(run.workload, **changes))


def with_environment(run: Run, **changes: object) -> Run:
    return replace(run, environment=replace(run.environment, **changes))


def with_client(run: Run, **changes: object) -> Run:
    return replace(run, client=replace(run.client, **changes))


def without_traces(run: Run) -> Run:
    intervals = [replace(each, owners_ms={}) for each in run.intervals]
    return replace(run, attribution=replace(run.attribution, source="statistics"), intervals=intervals)


def test_a_detector_that_is_four_times_as_fast():
    found = compare(made_up(seed=1), made_up(seed=2, requests=500, detector=20.0))
    detector = found.owner("detector")
    assert detector.speedup.value == pytest.approx(4, rel=0.02)
    assert detector.speedup.low < 4 < detector.speedup.high
    assert (detector.a_share, detector.b_share) == (pytest.approx(0.8, abs=0.01), pytest.approx(0.5, abs=0.01))
    # 80 of 100 ms become 20: 1 / (0.2 + 0.8 / 4) = 2.5.
    assert found.amdahl == pytest.approx(2.5, rel=0.02)
    assert found.latency["mean"].value == pytest.approx(2.5, rel=0.02)
    assert abs(found.amdahl_error_percent) < 2
    assert found.rate.value == pytest.approx(2.5, rel=0.02)
    assert (found.bottleneck_a, found.bottleneck_b, found.changed) == ("detector", "detector", "detector")
    assert found.sentence == "detector 4.0x faster, pipeline 2.5x: detector still owns 50%"
    assert found.differences == []


def test_amdahl_s_law_is_its_formula():
    found = compare(made_up(seed=1), made_up(seed=2, detector=20.0, postprocess=24.0))
    before, after = found.owner("postprocess").a_ms, found.owner("postprocess").b_ms
    detector = found.owner("detector")
    share, speedup = detector.a_share, detector.speedup.value
    assert found.amdahl == pytest.approx(1 / ((1 - share) + share / speedup))
    # Postprocess takes 12 ms more, which the law does not know: 100 / 40 against 100 / 52.
    assert found.amdahl_error_percent == pytest.approx(30, abs=3)
    assert found.prediction.endswith(f"; postprocess changed besides, from {before:.1f} to {after:.1f} ms")


def test_the_bottleneck_moves():
    found = compare(made_up(seed=1), made_up(seed=2, detector=4.0))
    assert (found.bottleneck_a, found.bottleneck_b) == ("detector", "postprocess")
    assert found.sentence == "detector 20x faster, pipeline 4.2x: postprocess owns 50% now"


def test_another_owner_that_was_exchanged():
    found = compare(made_up(seed=1), made_up(seed=2, postprocess=3.0), changed="postprocess")
    assert found.amdahl == pytest.approx(100 / 91, rel=0.02)
    assert found.prediction.startswith(
        "postprocess, 12% of A's mean, went from 12.0 to 3.0 ms: Amdahl's law predicts 1.1"
    )


def test_an_owner_that_grew_unasked_is_named():
    found = compare(made_up(seed=1, noise=0.01), made_up(seed=2, noise=0.01, postprocess=36.0))
    assert found.sentence == "postprocess 3.0x slower, pipeline 1.24x: detector still owns 65%"


def test_a_faster_detector_in_a_slower_pipeline():
    found = compare(made_up(seed=1, noise=0.02), made_up(seed=2, noise=0.02, detector=60.0, postprocess=60.0))
    assert found.sentence.startswith("detector 1.33x faster, pipeline 1.28x slower: ")


def test_a_queue_belongs_to_its_owner_and_is_mentioned():
    found = compare(made_up(seed=1, queue_ms=40), made_up(seed=2, detector=20.0, queue_ms=10))
    assert found.owner("detector").speedup.value == pytest.approx(4, rel=0.02)
    assert "(of which 40.0 and 10.0 ms in its queue)" in found.prediction
    assert "queue" not in compare(made_up(seed=1), made_up(seed=2)).prediction


def test_the_interval_is_that_of_welch_s_test_on_logarithms():
    a, b = made_up(seed=1, noise=0.3), made_up(seed=2, noise=0.1, intervals=6)
    ratio = compare(a, b).latency["mean"]
    logs = [np.log([each.mean_ms for each in run.intervals]) for run in (a, b)]
    theirs = stats.ttest_ind(*logs, equal_var=False).confidence_interval(0.95)
    # Theirs varies about the mean of the logarithms, ours about the logarithm of the run's mean.
    assert math.log(ratio.high / ratio.low) == pytest.approx(theirs.high - theirs.low, rel=0.05)
    assert math.sqrt(ratio.high * ratio.low) == pytest.approx(ratio.value)


SEEDS = 200
WRONG = 22
"""Of 200 that are each wrong with a chance of 5%, 10 are on average, and 22 four standard deviations later."""


def test_what_is_the_same_is_found_to_be_so_in_nineteen_of_twenty():
    wrong: Counter[str] = Counter()
    for seed in range(SEEDS):
        found = compare(made_up(2 * seed, noise=0.3), made_up(2 * seed + 1, noise=0.3))
        ratios = {**found.latency, "rate": found.rate, **{each.owner: each.speedup for each in found.owners}}
        wrong.update(name for name, ratio in ratios.items() if ratio.significant)
    assert max(wrong.values()) <= WRONG, wrong
    # An interval that is too wide would be no better: of percentiles and rates, which are known less well, it may be.
    assert min(wrong[name] for name in ("mean", *STAGE_MS, *OTHER_MS)) >= 2, wrong


def test_the_interval_holds_the_truth_in_nineteen_of_twenty():
    """Of a run with four times as many requests, whose intervals know their percentiles better."""
    missed: Counter[str] = Counter()
    for seed in range(SEEDS):
        before = made_up(2 * seed, noise=0.3, requests=200)
        found = compare(before, made_up(2 * seed + 1, noise=0.3, requests=800, slower=0.25))
        ratios = {**found.latency, "rate": found.rate, **{each.owner: each.speedup for each in found.owners}}
        missed.update(name for name, ratio in ratios.items() if not ratio.low <= 4 <= ratio.high)
        assert found.latency["mean"].high / found.latency["mean"].low < 1.5, "as narrow as 10 intervals allow"
    assert max(missed.values()) <= WRONG, missed


def test_ten_percent_with_little_noise_are_more_than_chance():
    for seed in range(20):
        found = compare(made_up(2 * seed, noise=0.05), made_up(2 * seed + 1, noise=0.05, slower=1.1))
        assert found.latency["mean"].significant
        assert found.latency["mean"].value == pytest.approx(1 / 1.1, rel=0.03)


def test_no_difference_is_said_to_be_none():
    found = compare(made_up(seed=1), made_up(seed=3))
    assert found.sentence.startswith("no difference end to end that these runs can show: pipeline ")
    assert not found.latency["mean"].significant


def test_few_intervals_give_a_ratio_without_an_interval():
    found = compare(made_up(seed=1, intervals=2), made_up(seed=2, detector=20.0))
    mean = found.latency["mean"]
    assert (mean.low, mean.high, mean.known, mean.significant) == (0, math.inf, False, False)
    assert (
        found.sentence
        == "detector 4.0x faster, pipeline 2.5x faster, but there are too few intervals to tell that from chance"
    )
    assert any(sentence.startswith("A has 2 intervals with answers") for sentence in found.differences)
    assert str(Ratio(4.123)) == "4.12x (chance unknown)"


def test_intervals_without_answers_are_left_out():
    run = made_up(seed=1)
    silent = Interval(0.0, 1.0, 0, 5, 0.0, 0.0, 0.0, 0.0)
    with_silence = replace(run, intervals=[silent, *run.intervals])
    assert compare(with_silence, made_up(seed=2)).latency == compare(run, made_up(seed=2)).latency


def test_without_traces_owners_have_no_interval():
    found = compare(without_traces(made_up(seed=1)), made_up(seed=2, detector=20.0))
    detector = found.owner("detector").speedup
    assert (detector.known, detector.value) == (False, pytest.approx(4, rel=0.02))
    assert found.latency["mean"].significant
    assert found.sentence == "detector 4.0x faster, pipeline 2.5x: detector still owns 50%"
    assert "sources of the attribution differ: statistics in A, traces in B" in found.differences


def test_runs_that_never_vary_are_compared_all_the_same():
    found = compare(made_up(noise=0), made_up(noise=0, detector=20.0))
    assert (found.latency["mean"].low, found.latency["mean"].high) == (pytest.approx(2.5), pytest.approx(2.5))
    assert not compare(made_up(noise=0), made_up(noise=0)).latency["p50"].significant


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: with_environment(run, cpu="another"), "processors differ: a CPU in A, another in B"),
        (lambda run: with_environment(run, cores=8), "cores differ: 2 in A, 8 in B"),
        (lambda run: with_environment(run, gpus=["a GPU"]), "GPUs differ: none in A, a GPU in B"),
        (lambda run: with_environment(run, address="gpu:8001"), "server machines differ: 127.0.0.1 in A, gpu in B"),
        (
            lambda run: with_environment(run, versions={"triton": "2.55.0", "numpy": "2"}),
            "versions differ between A and B: triton 2.51.0 and 2.55.0, numpy none and 2",
        ),
        (
            lambda run: with_environment(run, detector=ServedDetector(2, "tensorrt", 1, 16)),
            "detector instances differ: 2 in A, 1 in B",
        ),
        (lambda run: with_environment(run, detector=None), "detector instances differ: 2 in A, unknown in B"),
        (lambda run: with_workload(run, users=8), "users differ: 1 in A, 8 in B"),
        (lambda run: with_workload(run, rate_per_s=5.0), "rates asked for differ: none in A, 5.0 in B"),
        (lambda run: with_workload(run, shape="ramp"), "shapes of the load differ: constant in A, ramp in B"),
        (lambda run: with_workload(run, batch=4), "batch sizes of the requests differ: 1 in A, 4 in B"),
        (lambda run: with_workload(run, sizes=["8x8"]), "sizes of the images differ: as they are in A, 8x8 in B"),
        (lambda run: with_workload(run, processes=2), "numbers of load generators differ: 1 in A, 2 in B"),
        (
            lambda run: with_workload(run, images=ImageSet.of([b"x", b"y"])),
            "images differ: 1 in A are not the 2 in B",
        ),
        (without_traces, "sources of the attribution differ: traces in A, statistics in B"),
        (
            lambda run: with_client(run, failures={"DeadlineExceeded": Failure(3, "late")}),
            "3 of 203 requests failed in B (DeadlineExceeded): its latencies are of the others",
        ),
        (
            lambda run: with_client(run, busiest=0.95),
            "the load generator used 95% of a core in B: it may be what was measured",
        ),
    ],
)
def test_what_makes_a_comparison_unfair_is_said(change, said):
    run = made_up(seed=1)
    assert compare(run, made_up(seed=2)).differences == []
    assert compare(run, change(made_up(seed=2))).differences == [said]


def test_a_load_that_changes_is_weak_evidence():
    runs = [with_workload(made_up(seed), shape="ramp") for seed in (1, 2)]
    (sentence,) = compare(*runs).differences
    assert sentence.startswith("the load changes over the time")


def test_the_detector_itself_may_differ():
    other = with_environment(made_up(seed=2), detector=ServedDetector(7, "tensorrt", 2, 8, {"precision": "int8"}))
    assert differences(made_up(seed=1), other) == []


def test_what_cannot_be_compared_is_one_sentence():
    run = made_up()
    with pytest.raises(ContractError, match="A is closed and B is poisson"):
        compare(run, with_workload(run, loop="poisson"))
    with pytest.raises(ContractError, match="no request of B succeeded"):
        compare(run, with_client(run, latencies=Histogram()))
    with pytest.raises(ContractError, match="the first run of a side is closed and run 2 of it is video"):
        pool([run, with_workload(run, loop="video")])
    with pytest.raises(ContractError, match="no owner of time is called tracker; these are: preprocess, detector"):
        compare(run, run, changed="tracker")


def test_two_runs_of_a_side_are_put_after_each_other():
    runs = [made_up(seed=1), made_up(seed=2, requests=100, detector=20.0)]
    both = pool(runs)
    assert len(both.intervals) == 2 * INTERVALS
    assert both.client.latencies.count == both.attribution.requests == both.server["detector"].requests == 300
    mean = both.attribution.breakdowns["mean"]
    assert mean.total_ms == pytest.approx(both.client.latencies.mean_ms)
    assert sum(mean.owners().values()) == pytest.approx(mean.total_ms)
    assert mean.owners()["detector"] == pytest.approx((200 * 80 + 100 * 20) / 300, rel=0.02)
    assert pool(runs[:1]) is runs[0]


def test_from_three_runs_on_what_drifts_between_runs_counts():
    """Each run drifts by 10%: intervals within runs take that for a difference, whole runs do not."""
    seeds = range(100)
    drift = np.exp(np.random.default_rng(0).normal(0, 0.1, (len(seeds), 10)))

    def side(seed: int, first: int) -> list[Run]:
        return [made_up(10 * seed + first + n, 0.05, 50, slower=drift[seed, first + n]) for n in range(5)]

    single = sum(compare(side(seed, 0)[0], side(seed, 5)[0]).latency["mean"].significant for seed in seeds)
    pooled = sum(compare(pool(side(seed, 0)), pool(side(seed, 5))).latency["mean"].significant for seed in seeds)
    assert single > 50
    assert pooled <= 14  # 5 on average, and 4 standard deviations


def test_failures_of_pooled_runs_add_up():
    failed = with_client(made_up(), failures={"ImageError": Failure(2, "bad")}, busiest=0.5)
    client = pool([failed, made_up(), failed]).client
    assert client.failures == {"ImageError": Failure(4, "bad")}
    assert (client.failed, client.busiest) == (4, 0.5)


def test_limits_count_what_is_more_than_chance():
    limits = command.Limits({"p50": 5.0, "p95": 20.0}, rate_percent=5.0)
    slower = compare(made_up(1, 0.05), made_up(2, 0.05, slower=1.1))
    broken, unproven = command.judge(slower, limits)
    assert [sentence.split(" (")[0] for sentence in broken] == [
        f"B: p50 is longer by {100 * (slower.b_ms['p50'] / slower.a_ms['p50'] - 1):.1f}%",
        f"B: the rate is lower by {100 * (1 - slower.b_rate_per_s / slower.a_rate_per_s):.1f}%",
    ]
    assert broken[0].endswith("and 5% are allowed")
    assert unproven == []
    assert command.judge(compare(made_up(1, 0.05), made_up(2, 0.05)), limits) == ([], [])
    assert command.judge(compare(made_up(1, 0.05), made_up(2, 0.05, slower=0.5)), limits) == ([], [])


def test_a_loss_that_may_be_chance_breaks_no_limit_but_is_told():
    noisy = compare(made_up(1, 0.05), made_up(2, 0.05))
    noisy = replace(noisy, a_ms={**noisy.a_ms, "p99": 100.0}, b_ms={**noisy.b_ms, "p99": 112.0})
    noisy = replace(noisy, latency={**noisy.latency, "p99": Ratio(100 / 112, 0.7, 1.2)})
    broken, (told,) = command.judge(noisy, command.Limits({"p99": 5.0}))
    assert broken == []
    assert told.startswith(
        "B: p99 is longer by 12.0% (100.0 to 112.0 ms), and 5% are allowed; but these runs cannot tell"
    )


def test_a_speedup_must_be_shown():
    faster = compare(made_up(1), made_up(2, detector=20.0))
    assert command.judge(faster, command.Limits({}, speedup=2.0)) == ([], [])
    ((sentence,), _) = command.judge(faster, command.Limits({}, speedup=3.0))
    assert sentence.startswith("B: the speed-up of the mean is 2.")
    assert sentence.endswith("and 3x is wanted")
    chance = replace(faster, latency={**faster.latency, "mean": Ratio(2.5, 0.9, 7.0)})
    assert command.judge(chance, command.Limits({}, speedup=2.0))[0]


def test_limits_without_evidence_are_refused():
    few = compare(made_up(1, intervals=2), made_up(2))
    for limits in (command.Limits({"p95": 50.0}), command.Limits({}, 50.0), command.Limits({}, None, 1.5)):
        with pytest.raises(ContractError, match="cannot be judged: each side needs three intervals"):
            command.judge(few, limits)


@pytest.fixture
def run_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`triptych compare` in a directory with runs a, b (4x the detector), c (slower) and few (2 intervals)."""
    runs = {
        "a": made_up(1, 0.05),
        "b": made_up(2, 0.05, detector=20.0),
        "c": made_up(3, 0.05, slower=1.2),
        "a2": made_up(4, 0.05, slower=1.1),
        "a3": made_up(5, 0.05),
        "few": made_up(6, intervals=2),
    }
    for name, run in runs.items():
        run_file.write(tmp_path / f"{name}.json", run)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    app = typer.Typer()
    app.command()(command.compare)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_the_table_has_a_column_for_each_run(run_command):
    done = run_command("a.json", "b.json", "c.json")
    assert done.exit_code == 0, done.output
    (header,) = [line for line in done.stdout.splitlines() if "owner" in line and "┃" in line]
    assert header.replace(" ", "") == "┃owner┃a┃b┃againsta┃c┃againsta┃"
    (detector,) = [line for line in done.stdout.splitlines() if line.startswith("│ detector ")]
    assert "4.0" in detector
    assert "0.8" in detector
    assert "b: detector 4.0x faster, pipeline 2.5x: detector still owns 50%" in done.stdout
    assert re.search(
        r"^c: detector 1\.2\dx slower, pipeline 1\.2\dx: detector still owns 80%$", done.stdout, re.MULTILINE
    )


def test_limits_set_the_exit_code(run_command):
    kept = run_command("a.json", "b.json", "--max-p95-regression", "5%", "--min-speedup", "2")
    assert kept.exit_code == 0, kept.output
    broken = run_command("a.json", "c.json", "--max-p95-regression", "5", "--max-rate-regression", "50%")
    assert broken.exit_code == 1
    lines = [line for line in broken.stdout.splitlines() if line.startswith("limit broken: ")]
    assert len(lines) == 1
    assert lines[0].startswith("limit broken: c: p95 is longer by ")


def test_json_holds_all_of_it(run_command, tmp_path):
    done = run_command(
        "a.json", "b.json", "few.json", "--json", "out.json", "--name", "x", "--name", "y", "--name", "z"
    )
    assert done.exit_code == 0, done.output
    text = (tmp_path / "out.json").read_text()
    assert "Infinity" not in text
    first, second = json.loads(text)["comparisons"]
    assert (first["a"], first["b"], second["b"]) == ("x", "y", "z")
    assert first["latency"]["mean"]["significant"] is True
    assert first["amdahl"] == pytest.approx(2.5, rel=0.02)
    assert [owner["owner"] for owner in first["owners"]][:3] == ["preprocess", "detector", "postprocess"]
    assert second["latency"]["mean"]["high"] is None
    assert set(first) == {*comparison.Comparison.__dataclass_fields__, "amdahl_error_percent"}


def test_two_runs_of_a_side_that_disagree_are_told(run_command):
    two = run_command("a.json,a2.json", "b.json").stdout
    assert "a.json and a2.json, of one side, disagree by 0.9" in two
    assert "┃ a+a2 ┃" in " ".join(two.split())
    assert "disagree" not in run_command("a.json,a3.json", "b.json").stdout
    assert "disagree" not in run_command("a.json,a2.json,a3.json", "b.json").stdout


def test_what_drifts_between_runs_is_warned_of_until_it_is_measured(run_command):
    warning = "the 95% intervals do not see what drifts from run to run"
    assert warning in run_command("a.json", "b.json").stdout
    assert warning in run_command("a.json,a2.json,a3.json", "b.json").stdout
    assert warning not in run_command("a.json,a2.json,a3.json", "b.json,b.json,b.json").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.json"], "two runs or more were expected"),
        (["a.json", "none.json"], "none.json is not a run that can be read"),
        (["a.json", "old.json"], "must be a run of version 2, but its version is 1"),
        (["a.json", "b.json", "--name", "x"], "--name is wanted once for each of the 2 runs, but came 1 times"),
        (["a.json", "b.json", "--max-p50-regression", "much"], "must be a percentage of at least 0, such as 5%"),
        (["a.json", "b.json", "--max-p50-regression", "-5%"], "must be a percentage of at least 0, such as 5%"),
        (["a.json", "b.json", "--min-speedup", "0.9"], "--min-speedup must be above 1, but is 0.9"),
        (["a.json", "b.json", "--changed", "tracker"], "no owner of time is called tracker"),
        (["a.json", "few.json", "--max-p50-regression", "5%"], "cannot be judged"),
    ],
)
def test_bad_input_is_one_sentence(run_command, tmp_path, arguments, said):
    (tmp_path / "old.json").write_text('{"version": 1}')
    done = run_command(*arguments)
    assert isinstance(done.exception, ContractError)
    assert said in str(done.exception)
    assert "\n" not in str(done.exception)


def test_runs_of_one_name_are_told_apart(run_command, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "a.json").rename(tmp_path / "other" / "b.json")
    done = run_command("b.json", "other/b.json")
    assert done.stdout.startswith("b.json: ")
    assert "\nother/b.json: " in done.stdout


def test_a_description_says_which_detector_and_load():
    manifest = {"adapted": {"source": "pcb.onnx"}, "precision": "int8", "target": "openvino"}
    run = with_environment(made_up(), detector=ServedDetector(3, "python", 2, 16, manifest))
    assert (
        command.describe(run) == "pcb.onnx int8 version 3 on openvino; closed loop of 1, 200 requests, 2026-01-02T03:04"
    )
    assert command.describe(with_environment(run, detector=None)).startswith("an unknown detector; ")
