"""What a sweep shows, in sentences: the knee, the most within the budget, and what another setting changes."""

from __future__ import annotations

from collections.abc import Sequence

from triptych.measure.bounds import CONFIDENCE
from triptych.measure.sweep import Budget, Point, Series


def sentences(series: Sequence[Series], budget: Budget | None) -> list[str]:
    """Return the knee of each series, the most within the budget, and what each other setting changes."""
    lines = []
    for one in series:
        name = f"{one.label}: " if len(series) > 1 else ""
        own = (knee_sentence(one), budget_sentence(one, budget) if budget else "")
        lines += [name + sentence for sentence in own if sentence]
    return [*lines, *(effect_sentence(other, series[0], budget) for other in series[1:])]


def knee_sentence(series: Series) -> str:
    """Say where the knee is and what the next load brings; empty if there is no knee."""
    if series.knee is None:
        return ""
    at = series.points[series.knee]
    where = f"the knee is at {at.load}"
    if series.knee == 0 and at.users != 1:
        where += " or below"
    there = f"{at.rate} at p50 {at.p50_ms:.1f} ms"
    if series.knee + 1 == len(series.points):
        return f"{where} or beyond: {there}"
    after = series.points[series.knee + 1]
    gain = after.answered_per_s / at.answered_per_s - 1
    change = f"{abs(gain):.0%} {'more' if gain >= 0 else 'less'}"
    return f"{where}: {there}; at {after.load} it is {change}, and the p50 is {after.p50_ms / at.p50_ms:.1f}x as long"


def budget_sentence(series: Series, budget: Budget) -> str:
    """Name the heaviest load within the budget, or say that there is none."""
    if series.points[0].fps:
        return _cameras_sentence(series, budget)
    what = "concurrency" if series.points[0].users_wait else "rate"
    if series.best_within_budget is None:
        lightest = series.points[0]
        if broken := budget.broken_by(lightest):
            return f"no {what} keeps {budget}: at {lightest.load} {broken}"
        return f"which {what} keeps {budget} is not known: the search ended before a longer run confirmed one"
    best = series.points[series.best_within_budget]
    best_load = f"{best.load}: {best.rate}" if best.users_wait else f"{best.rate_per_s:g}/s"
    if best.batch > 1 and not best.users_wait:
        best_load += f", {best.rate}"
    best_load += _how_sure(best, budget)
    if best is series.points[-1]:
        return f"every {what} up to the highest keeps {budget}, {best_load}; the limit is beyond"
    beyond = series.points[series.best_within_budget + 1]
    return f"the highest {what} within {budget} is {best_load} (at {beyond.load} {budget.broken_by(beyond)})"


def _how_sure(point: Point, budget: Budget) -> str:
    bounds = [f"{budget.at} at most {point.bounds_ms[budget.at]:.1f} ms"] if budget.at in point.bounds_ms else []
    bounds += [f"at most {point.dropped_at_most:.1%} of the frames dropped"] if budget.max_dropped else []
    confirmed = ", confirmed by a longer run" if point.confirmed else ""
    return f"{confirmed}, {' and '.join(bounds)} with {CONFIDENCE:.0%} confidence" if bounds else confirmed


def _cameras_sentence(series: Series, budget: Budget) -> str:
    lightest, heaviest = series.points[0], series.points[-1]
    each = f"{lightest.fps:g} frames/s"
    if series.best_within_budget is None:
        if broken := budget.broken_by(lightest):
            return f"not even {lightest.load} at {each} keeps {budget}: {broken}"
        return (
            f"how many cameras at {each} keep {budget} is not known: the search ended before a longer run confirmed it"
        )
    best = series.points[series.best_within_budget]
    beyond = series.points[series.best_within_budget + 1] if best is not heaviest else None
    limit = f" (at {beyond.load} {budget.broken_by(beyond)})" if beyond else ""
    are = "are" if best.users > 1 else "is"
    return f"{best.load} at {each} each {are} the most within {budget}{_how_sure(best, budget)}{limit}"


def effect_sentence(series: Series, base: Series, budget: Budget | None) -> str:
    """Say what a setting changes against another: at most, within the budget, and at the loads that both have."""
    ratio = f"{series.most_per_s / base.most_per_s:.2f}x the requests/s at most" if base.most_per_s else "no comparison"
    effects = [f"{ratio} ({series.most_per_s:.1f} and {base.most_per_s:.1f})"]
    if budget and series.best_within_budget is not None and base.best_within_budget is not None:
        ours, theirs = series.points[series.best_within_budget], base.points[base.best_within_budget]
        effects.append(f"{ours.answered_per_s:.1f} and {theirs.answered_per_s:.1f} within {budget}")
    pairs = [(ours, theirs) for ours in series.points for theirs in base.points if ours.load == theirs.load]
    if pairs:
        ends = dict.fromkeys((0, len(pairs) - 1))
        at = [f"{pairs[i][0].p50_ms:.1f} and {pairs[i][1].p50_ms:.1f} ms at {pairs[i][0].load}" for i in ends]
        ours, theirs = pairs[-1]
        effects += [f"p50 {', '.join(at)}", f"mean batch {ours.mean_batch:.1f} and {theirs.mean_batch:.1f} there"]
    return f"{series.label} against {base.label}: {'; '.join(effects)}"
