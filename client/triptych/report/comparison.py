"""The report of comparisons: what a faster stage makes of the whole, and what may be chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from triptych.measure.comparison import Comparison
from triptych.measure.ratio import Ratio
from triptych.measure.run_file import Run
from triptych.report.attribution import PERCENTILES
from triptych.report.blocks import Block, Figure, Figures, Note, Page, Row, Section, Share, Table
from triptych.report.owners import bars
from triptych.report.setting import setting, started, workload_sentence

RATIOS = (
    "Above 1, {b} is better. The true speed-up lies in its interval with 95% confidence. A question mark says that the "
    "interval holds 1: the difference may be chance."
)


def of_comparisons(comparisons: Sequence[Comparison], runs: Sequence[Run], notes: Sequence[str] = ()) -> Page:
    """Return the report of runs that are compared with the first of them.

    Args:
        comparisons: one for each run but the first.
        runs: the runs, the first one first.
        notes: warnings.
    """
    first = comparisons[0]
    named = dict(zip([first.a, *(comparison.b for comparison in comparisons)], runs, strict=True))
    alone = len(comparisons) == 1
    return Page(
        title=f"{', '.join(comparison.b for comparison in comparisons)} against {first.a}",
        subtitle=f"{workload_sentence(runs[0].workload)}, {started(runs[0].started)}",
        headline=first.sentence if alone else "; ".join(f"{one.b}: {one.sentence}" for one in comparisons),
        sections=[
            Section("", _verdicts(comparisons, notes)),
            Section(
                "Who takes the mean",
                [
                    bars({name: run.attribution.breakdowns["mean"] for name, run in named.items()}),
                    *(Note(comparison.prediction) for comparison in comparisons),
                ],
            ),
            *(_tables(comparison, alone=alone) for comparison in comparisons),
            *_percentiles(named),
            *(_setting(name, run) for name, run in named.items()),
        ],
    )


def _verdicts(comparisons: Sequence[Comparison], notes: Sequence[str]) -> list[Block]:
    figures = []
    for comparison in comparisons:
        of = f", {comparison.b}" if len(comparisons) > 1 else ""
        changed = comparison.owner(comparison.changed).speedup
        figures += [
            *([Figure(f"{changed.value:.2f}x", "", f"{comparison.changed}{of}")] if changed else ()),
            Figure(f"{comparison.latency['mean'].value:.2f}x", "", f"end to end{of}"),
            Figure(f"{comparison.amdahl:.2f}x", "", f"Amdahl's law{of}"),
            *(Figure(f"{ratio.value:.2f}x", "", f"{unit}{of}") for unit, (_, _, ratio) in comparison.rates.items()),
        ]
    broken = [Note(sentence, "bad") for comparison in comparisons for sentence in comparison.refusals]
    return [Figures(figures), *broken, *(Note(sentence, "warning") for sentence in notes)]


def _tables(comparison: Comparison, *, alone: bool) -> Section:
    owners = [
        Row(
            [
                change.owner,
                f"{change.a_ms:.2f}",
                f"{change.b_ms:.2f}",
                *_ratio(change.speedup),
                Share(change.a_share),
                Share(change.b_share),
            ]
        )
        for change in comparison.owners
    ]
    ends = [
        Row([at, f"{comparison.a_ms[at]:.2f}", f"{comparison.b_ms[at]:.2f}", *_ratio(ratio)])
        for at, ratio in comparison.latency.items()
    ]
    rates = [
        Row([unit, per(of_a), per(of_b), *_ratio(ratio)]) for unit, (of_a, of_b, ratio) in comparison.rates.items()
    ]
    a, b = comparison.a, comparison.b
    moved = f"The bottleneck was {comparison.bottleneck_a} and is {comparison.bottleneck_b}."
    if comparison.bottleneck_a == comparison.bottleneck_b:
        moved = f"The bottleneck was {comparison.bottleneck_a}, and still is."
    return Section(
        "What changed" if alone else f"{b} against {a}",
        [
            Note(moved),
            Table(["mean, ms", a, b, "speed-up", "95% interval", f"of {a}", f"of {b}"], owners),
            Table(["end to end, ms", a, b, "speed-up", "95% interval"], [*ends, *rates]),
            Note(RATIOS.format(b=b), "small"),
        ],
    )


def per(figure: float) -> str:
    """Write a rate, or images per joule, which may be far below one."""
    return f"{figure:.1f}" if figure >= 10 else f"{figure:.3g}"


def _ratio(ratio: Ratio | None) -> list[str]:
    if ratio is None:
        return ["–", "–"]
    interval = f"{ratio.low:.2f} to {ratio.high:.2f}" if ratio.known else "unknown"
    return [f"{ratio.value:.2f}x{'' if ratio.significant else ' ?'}", interval]


def _percentiles(named: dict[str, Run]) -> list[Section]:
    blocks: list[Block] = []
    for at in PERCENTILES:
        known = {f"{at}, {name}": run.attribution.breakdowns.get(at) for name, run in named.items()}
        if breakdowns := {label: breakdown for label, breakdown in known.items() if breakdown}:
            blocks.append(replace(bars(breakdowns), legend=not blocks))
    return [Section("At the percentiles", blocks)] if blocks else []


def _setting(name: str, run: Run) -> Section:
    blocks = [block for section in setting(run) for block in section.blocks]
    return Section(f"How {name} was measured", blocks, folded=True)
