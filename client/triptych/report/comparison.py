"""The report of comparisons: why so much on one stage is so much, and no more, on the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from triptych.measure.attribution import PERCENTS
from triptych.measure.comparison import Comparison, Ratio
from triptych.measure.run_file import Run
from triptych.report.blocks import Block, Figure, Figures, Note, Page, Row, Section, Share, Table
from triptych.report.owners import bars
from triptych.report.run import setting, workload_sentence

RATIOS = (
    "Above 1 {b} is better. The true speed-up lies in its interval with 95% confidence; a question mark says that the "
    "interval holds 1, so that the difference may be chance."
)


def of_comparisons(found: Sequence[Comparison], runs: Sequence[Run], notes: Sequence[str] = ()) -> Page:
    """The report of runs that are compared with the first of them.

    Args:
        found: a comparison for each run but the first.
        runs: the runs, the first one first.
        notes: what else there is to warn of.
    """
    first = found[0]
    named = dict(zip([first.a, *(each.b for each in found)], runs, strict=True))
    return Page(
        title=f"{', '.join(each.b for each in found)} against {first.a}",
        subtitle=f"{workload_sentence(runs[0].workload)}, {runs[0].started[:16].replace('T', ' ')} UTC",
        headline=first.sentence if len(found) == 1 else "; ".join(f"{each.b}: {each.sentence}" for each in found),
        sections=[
            Section("", _verdicts(found, notes)),
            Section(
                "Who takes the mean",
                [
                    bars({name: run.attribution.breakdowns["mean"] for name, run in named.items()}),
                    *(Note(each.prediction) for each in found),
                ],
            ),
            *(_tables(each, alone=len(found) == 1) for each in found),
            *_percentiles(named),
            *(_setting(name, run) for name, run in named.items()),
        ],
    )


def _verdicts(found: Sequence[Comparison], notes: Sequence[str]) -> list[Block]:
    figures = []
    for each in found:
        of = f", {each.b}" if len(found) > 1 else ""
        changed = each.owner(each.changed).speedup
        figures += [
            *([Figure(f"{changed.value:.2f}x", "", f"{each.changed}{of}")] if changed else ()),
            Figure(f"{each.latency['mean'].value:.2f}x", "", f"end to end{of}"),
            Figure(f"{each.amdahl:.2f}x", "", f"Amdahl's law{of}"),
            Figure(f"{each.rate.value:.2f}x", "", f"requests/s{of}"),
        ]
    broken = [Note(sentence, "bad") for each in found for sentence in each.regressions]
    warnings = dict.fromkeys([*(sentence for each in found for sentence in each.differences), *notes])
    return [Figures(figures), *broken, *(Note(sentence, "warning") for sentence in warnings)]


def _tables(found: Comparison, *, alone: bool) -> Section:
    owners = [
        Row(
            [
                each.owner,
                f"{each.a_ms:.2f}",
                f"{each.b_ms:.2f}",
                *_ratio(each.speedup),
                Share(each.a_share),
                Share(each.b_share),
            ]
        )
        for each in found.owners
    ]
    ends = [
        Row([at, f"{found.a_ms[at]:.2f}", f"{found.b_ms[at]:.2f}", *_ratio(ratio)])
        for at, ratio in found.latency.items()
    ]
    rates = Row(["requests/s", f"{found.a_rate_per_s:.1f}", f"{found.b_rate_per_s:.1f}", *_ratio(found.rate)])
    a, b = found.a, found.b
    moved = f"The bottleneck was {found.bottleneck_a} and is {found.bottleneck_b}."
    if found.bottleneck_a == found.bottleneck_b:
        moved = f"The bottleneck was {found.bottleneck_a}, and still is."
    return Section(
        "What changed" if alone else f"{b} against {a}",
        [
            Note(moved),
            Table(["mean, ms", a, b, "speed-up", "95% interval", f"of {a}", f"of {b}"], owners),
            Table(["end to end, ms", a, b, "speed-up", "95% interval"], [*ends, rates]),
            Note(RATIOS.format(b=b), "small"),
        ],
    )


def _ratio(ratio: Ratio | None) -> list[str]:
    if ratio is None:
        return ["–", "–"]
    interval = f"{ratio.low:.2f} to {ratio.high:.2f}" if ratio.known else "unknown"
    return [f"{ratio.value:.2f}x{'' if ratio.significant else ' ?'}", interval]


def _percentiles(named: dict[str, Run]) -> list[Section]:
    blocks: list[Block] = []
    for at in (f"p{percent}" for percent in PERCENTS):
        known = {f"{at}, {name}": run.attribution.breakdowns.get(at) for name, run in named.items()}
        if found := {label: breakdown for label, breakdown in known.items() if breakdown}:
            blocks.append(replace(bars(found), legend=not blocks))
    return [Section("At the percentiles", blocks)] if blocks else []


def _setting(name: str, run: Run) -> Section:
    blocks = [block for section in setting(run) for block in section.blocks]
    return Section(f"How {name} was measured", blocks, folded=True)
