"""`triptych compare`: runs of load tests beside each other, and whether a difference is more than chance."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from triptych.contract import DETECTOR
from triptych.errors import ContractError
from triptych.files import atomic_write
from triptych.report.terminal import comparison_table

if TYPE_CHECKING:
    from triptych.measure.comparison import Comparison, Ratio
    from triptych.measure.run_file import Run


@dataclass(frozen=True)
class Limits:
    """What a comparison may show at worst; None where anything will do.

    Attributes:
        latency_percent: by `p50`, `p95` and `p99`, by how many percent it may be longer than before.
        rate_percent: by how many percent fewer requests a second may be answered.
        speedup: of the mean, at least; above 1.
    """

    latency_percent: dict[str, float]
    rate_percent: float | None = None
    speedup: float | None = None


def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="A B [C…]", help="Run files; several of one side with commas: A1,A2,A3.")
    ],
    name: Annotated[
        list[str] | None, typer.Option(help="What to call a run, once for each of them. [default: its file's name]")
    ] = None,
    changed: Annotated[
        str, typer.Option(metavar="OWNER", help="What was exchanged: the owner that Amdahl's law is asked about.")
    ] = DETECTOR.name,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with the pictures.")] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it as Markdown, for a pull request.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all of it as JSON.")] = None,
    max_p50_regression: Annotated[
        str | None, typer.Option(metavar="PERCENT", help="Exit 1 if the p50 is longer by more, such as 5%.")
    ] = None,
    max_p95_regression: Annotated[str | None, typer.Option(metavar="PERCENT", help="The same for the p95.")] = None,
    max_p99_regression: Annotated[str | None, typer.Option(metavar="PERCENT", help="The same for the p99.")] = None,
    max_rate_regression: Annotated[
        str | None, typer.Option(metavar="PERCENT", help="Exit 1 if the requests a second are fewer by more.")
    ] = None,
    min_speedup: Annotated[
        float | None, typer.Option(metavar="X", help="Exit 1 if the mean is not shown to be so many times as fast.")
    ] = None,
) -> None:
    """Compare each run with the first: what became faster, what Amdahl's law expected, what may be chance.

    A limit is broken by a difference that is more than chance alone. The intervals within one run do not see what
    drifts from run to run: three or more runs of each side, with commas between them, do.

    Exit codes: 0 every limit was kept, 1 one was broken or the runs cannot be compared.
    """
    percents = {"p50": max_p50_regression, "p95": max_p95_regression, "p99": max_p99_regression}
    limits = Limits(
        {at: _percent(f"--max-{at}-regression", text) for at, text in percents.items() if text is not None},
        None if max_rate_regression is None else _percent("--max-rate-regression", max_rate_regression),
        min_speedup,
    )
    if min_speedup is not None and min_speedup <= 1:
        raise ContractError(
            f"--min-speedup must be above 1, but is {min_speedup:g}; --max-p50-regression limits losses"
        )
    if len(runs) < 2:
        raise ContractError("two runs or more were expected: triptych compare A.json B.json")
    try:
        from triptych import report as reports
        from triptych.measure import comparison, run_file
    except ImportError as error:
        raise ContractError(
            f"comparing needs the package {error.name}; install it with `pip install 'triptych[loadtest]'`"
        ) from error

    paths = [[Path(path) for path in side.split(",")] for side in runs]
    names = _names(paths, name or [])
    sides = [[run_file.read(path) for path in side] for side in paths]
    pooled = [comparison.pool(side) for side in sides]
    notes = [note for side, files in zip(sides, paths, strict=True) for note in disagreements(side, files)]
    if any(len(side) < comparison.FEWEST_SAMPLES for side in sides):
        notes.append(
            "the 95% intervals do not see what drifts from run to run, unless each side has "
            f"{comparison.FEWEST_SAMPLES} runs or more, taken in turn: A1,A2,A3 B1,B2,B3"
        )
    found = []
    for run, its_name in zip(pooled[1:], names[1:], strict=True):
        each = comparison.compare(pooled[0], run, (names[0], its_name), changed)
        broken, unproven = judge(each, limits)
        found.append(replace(each, regressions=broken))
        notes += unproven
    report(found, pooled, notes, Console())
    page = reports.of_comparisons(found, pooled, notes)
    if html:
        reports.write(html, reports.html(page))
    if markdown:
        reports.write(markdown, reports.markdown(page))
    if json_file:
        text = json.dumps({"comparisons": [comparison.to_json(each) for each in found], "notes": notes}, indent=1)
        with atomic_write(json_file) as aside:
            aside.write_text(text + "\n")
    if any(each.regressions for each in found):
        sys.exit(1)


def judge(comparison: Comparison, limits: Limits) -> tuple[list[str], list[str]]:
    """A sentence for each limit that was broken, and for each that may have been by chance.

    Raises:
        ContractError: there are too few intervals to judge a limit.
    """
    broken: list[str] = []
    unproven: list[str] = []

    def regression(what: str, percent: float, limit: float, ratio: Ratio, was: str) -> None:
        _must_be_known(ratio, what)
        if percent > limit:
            sentence = f"{comparison.b}: {what} by {percent:.1f}% ({was}), and {limit:g}% are allowed"
            if ratio.significant:
                broken.append(sentence)
            else:
                unproven.append(f"{sentence}; but these runs cannot tell that from chance, so no limit is broken")

    for at, limit in limits.latency_percent.items():
        a_ms, b_ms, ratio = comparison.a_ms[at], comparison.b_ms[at], comparison.latency[at]
        regression(f"{at} is longer", 100 * (b_ms / a_ms - 1), limit, ratio, f"{a_ms:.1f} to {b_ms:.1f} ms")
    if limits.rate_percent is not None:
        a_rate, b_rate = comparison.a_rate_per_s, comparison.b_rate_per_s
        was = f"{a_rate:.1f} to {b_rate:.1f} requests/s"
        regression("the rate is lower", 100 * (1 - b_rate / a_rate), limits.rate_percent, comparison.rate, was)
    mean = comparison.latency["mean"]
    if limits.speedup is not None:
        _must_be_known(mean, "the mean is faster")
        if mean.value < limits.speedup or not mean.significant:
            broken.append(f"{comparison.b}: the speed-up of the mean is {mean}, and {limits.speedup:g}x is wanted")
    return broken, unproven


def _must_be_known(ratio: Ratio, what: str) -> None:
    if not ratio.known:
        raise ContractError(
            f"whether {what} cannot be judged: each side needs three intervals with answers at least; measure longer, "
            "or in more --intervals"
        )


def disagreements(side: Sequence[Run], paths: Sequence[Path]) -> list[str]:
    """A sentence for each thing in which the runs of one side are not the same."""
    from triptych.measure.comparison import FEWEST_SAMPLES, compare, differences

    notes = []
    for path, run in zip(paths[1:], side[1:], strict=True):
        names = (str(paths[0]), str(path))
        notes += [f"of one side, but {sentence}" for sentence in differences(side[0], run, names)]
    if 1 < len(side) < FEWEST_SAMPLES:
        for (one, run), (other, another) in combinations(zip(paths, side, strict=True), 2):
            mean = compare(run, another).latency["mean"]
            if mean.significant:
                notes.append(
                    f"{one} and {other}, of one side, disagree by {mean}: the confidence intervals are too narrow, "
                    f"since the machine drifts between runs; give {FEWEST_SAMPLES} runs or more of each side"
                )
    return notes


def report(found: Sequence[Comparison], runs: Sequence[Run], notes: Sequence[str], console: Console) -> None:
    """Print what the comparisons showed."""
    for its_name, run in zip((found[0].a, *(each.b for each in found)), runs, strict=True):
        console.print(Text.assemble((its_name, "bold"), f": {describe(run)}"), soft_wrap=True)
    console.print(comparison_table(found, runs))
    many = len(found) > 1
    for each in found:
        start = f"{each.b}: " if many else ""
        console.print(Text(f"{start}{each.sentence}", "bold"), soft_wrap=True)
        console.print(Text(f"{start}{each.prediction}"), soft_wrap=True)
    warnings = dict.fromkeys(sentence for each in found for sentence in each.differences)
    for sentence in (*warnings, *notes):
        console.print(Text(sentence, "yellow"), soft_wrap=True)
    for each in found:
        for sentence in each.regressions:
            console.print(Text.assemble(("limit broken: ", "red"), sentence), soft_wrap=True)


def describe(run: Run) -> str:
    """Which detector served which load, in one line."""
    workload, detector = run.workload, run.environment.detector
    what = "an unknown detector"
    if detector:
        manifest = detector.manifest or {}
        known = [str(manifest.get("adapted", {}).get("source", "")), str(manifest.get("precision", ""))]
        runtime = manifest.get("target", detector.backend)
        what = " ".join(part for part in (*known, f"version {detector.version} on {runtime}") if part)
    users = f" of {workload.users}" if workload.users else ""
    rate = f", {workload.rate_per_s:g}/s" if workload.rate_per_s else ""
    return f"{what}; {workload.loop} loop{users}{rate}, {run.client.latencies.count} requests, {run.started[:16]}"


def _names(paths: Sequence[Sequence[Path]], given: Sequence[str]) -> list[str]:
    """What to call each side: as given, else by its files' names, or by their whole paths where two are the same."""
    if given and len(given) != len(paths):
        raise ContractError(f"--name is wanted once for each of the {len(paths)} runs, but came {len(given)} times")
    stems = ["+".join(path.stem for path in side) for side in paths]
    whole = ["+".join(map(str, side)) for side in paths]
    return list(given) or (stems if len(set(stems)) == len(stems) else whole)


def _percent(option: str, text: str) -> float:
    """5 for `5%` or `5`."""
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = -1.0
    if not value >= 0:
        raise ContractError(f"{option} must be a percentage of at least 0, such as 5%, but is {text}")
    return value
