"""The report of a search for better settings: what each step changed, and what it brought."""

from __future__ import annotations

from triptych.measure.tuning import Try, Tuning, mean_images_per_s
from triptych.measure.tuning_search import History, Step, steps
from triptych.report.blocks import Block, Chart, Charts, Line, Marks, Note, Page, Row, Section, Table
from triptych.report.owners import stacked
from triptych.report.setting import again, environment_sections, started

FIRST = "as served"

NOISY = 0.05
"""Where measurements of the same settings differ by more, only large steps can be seen."""


def of_tuning(tuning: Tuning, name: str) -> Page:
    """Return the report; `name` is what to call it."""
    images = f", {tuning.batch} images a request" if tuning.batch > 1 else ""
    return Page(
        title=name,
        subtitle=(
            f"Search for settings: {tuning.users} users that wait for each answer{images}, "
            f"{tuning.duration_s:g} s each, {started(tuning.started)}"
        ),
        headline=tuning.sentence,
        sections=[
            Section(
                "Step by step",
                [
                    _curve(tuning),
                    _steps(tuning),
                    Note(noise_sentence(tuning), "warning" if is_noisy(tuning) else "small"),
                ],
            ),
            *([Section("In turns", _turns(tuning))] if tuning.turns else ()),
            Section("Where the time goes", [_owners(tuning)]),
            *environment_sections(tuning.environment),
            again(tuning.command, tuning.images),
        ],
    )


def outcome(step: Step) -> str:
    """Say what came of a step: `taken`, why it was refused, or nothing."""
    if step.tried.refused:
        return f"refused: {step.tried.refused}"
    return "taken" if step.taken else ""


def noise_sentence(tuning: Tuning) -> str:
    """Say by how much measurements of the same settings differed."""
    return (
        f"the same settings, measured again, differed by {_spread(tuning):.1%} (standard deviation); a step is taken "
        "if it brings more than that explains"
    )


def is_noisy(tuning: Tuning) -> bool:
    """Return whether the machine did something else meanwhile, by the look of it."""
    return _spread(tuning) > NOISY


def _spread(tuning: Tuning) -> float:
    return History(tuning.tries).spread


def _curve(tuning: Tuning) -> Charts:
    made = steps(tuning.tries)
    answered = [(float(number), step.tried.images_per_s) for number, step in enumerate(made) if not step.tried.refused]
    best, bests = tuning.start, list[tuple[float, float]]()
    for number, step in enumerate(made):
        best = step.tried.settings if step.taken else best
        bests.append((float(number), mean_images_per_s(tuning.tries[: number + 1], best)))
    taken = [(float(number), step.tried.images_per_s) for number, step in enumerate(made) if step.taken]
    return Charts(
        [
            Chart(
                "What each step brought",
                "step",
                "images/s",
                lines=[Line("measured", answered), Line("best so far", bests)],
                marks=[Marks("taken", taken)] if taken else [],
            )
        ]
    )


def _steps(tuning: Tuning) -> Table:
    rows = []
    for number, step in enumerate(steps(tuning.tries)):
        one = step.tried
        change = step.change or (f"{FIRST}: {one.settings}" if number == 0 else "again")
        rows.append(Row([str(number), change, *_figures(one), outcome(step) or "–"]))
    return Table(["step", "change", "images/s", "p50, ms", "p95, ms", "owner", "busy", ""], rows, words=2)


def _figures(one: Try) -> list[str]:
    if one.refused:
        return ["–"] * 5
    busy = ", ".join(f"{name} {load.busy:.0%}" for name, load in one.stages.items())
    return [f"{one.images_per_s:.1f}", f"{one.p50_ms:.1f}", f"{one.p95_ms:.1f}", one.owner, busy]


def _owners(tuning: Tuning) -> Block:
    """Return the mean by owner, with the first settings and with the best; one bar where those are the same."""
    last = {one.settings: one for one in tuning.tries}
    shown = {FIRST: last[tuning.start]}
    if tuning.best != tuning.start:
        shown[str(tuning.best)] = last[tuning.best]
    return stacked(
        {label: one.owners_ms for label, one in shown.items()}, {label: one.mean_ms for label, one in shown.items()}
    )


def _turns(tuning: Tuning) -> list[Block]:
    rows = [
        Row([str(number), str(turn.settings), *(_figures(turn)[:3])]) for number, turn in enumerate(tuning.turns, 1)
    ]
    return [
        Note("Each turn is a server of its own, so that what differs from start to start is in the interval."),
        Table(["turn", "settings", "images/s", "p50, ms", "p95, ms"], rows, words=2),
    ]
