"""The report of a profile: which layers have the time of a detector, and what changed against another profile."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from triptych.measure.profile import Profile, total_ms
from triptych.measure.profile_change import Change
from triptych.report.blocks import Block, Code, Figure, Figures, Note, Page, Row, Section, Share, Table
from triptych.report.owners import stacked
from triptych.report.setting import environment_sections, started

TOP = 20
"""Groups of layers that the page shows of a change."""


def of_profile(profile: Profile, change: Change | None = None) -> Page:
    """Return the report of a profile, and of what changed if there is an earlier one."""
    return Page(
        title=f"The layers of {profile.model}",
        subtitle=f"{setting_sentence(profile)}, {started(profile.started)}",
        headline=change.sentence if change else _owners(profile),
        sections=[
            Section("", [_figures(profile), *(Note(sentence) for sentence in profile.sentences())]),
            *([_changed(change)] if change else ()),
            Section("By precision and by kind", [_bars(profile), precision_table(profile), kind_table(profile)]),
            Section("Layers, the slowest first", [layer_table(profile, kernels=True)]),
            *environment_sections(profile.environment),
            Section("Measure it again", [Code(shlex.join(profile.command))], folded=True),
        ],
    )


def setting_sentence(profile: Profile) -> str:
    """Say how the profile was measured."""
    versions = profile.environment.versions
    version = next((number for name, number in versions.items() if name.startswith(profile.runtime)), "")
    threads = f", threads: {profile.threads}" if profile.threads else ""
    return (
        f"{profile.model}, made for {profile.precision}, on {profile.runtime} {version}: random pixels, images in a "
        f"call: {profile.batch}{threads}, calls: {profile.runs}"
    )


def layer_table(profile: Profile, top: int | None = None, *, kernels: bool = False) -> Table:
    """Return the layers, the slowest first; those beyond `top` are one row. The times add up."""
    slowest = profile.slowest()
    shown = slowest[:top]
    rest_ms = total_ms(slowest[len(shown) :])

    def row(name: str, words: list[str], ms: float, total: bool = False) -> Row:
        words = words if kernels else words[:-1]
        return Row([name, *words, _ms(ms), Share(profile.share(ms))], "total" if total else "")

    rows = [row(layer.name, [layer.kind, layer.owner, layer.kernel], layer.ms) for layer in shown]
    if len(slowest) > len(shown):
        rows.append(row(f"{len(slowest) - len(shown)} more", [""] * 3, rest_ms))
    rows.append(row(f"{len(slowest)} layers", [""] * 3, profile.layers_ms, total=True))
    words = ["layer", "kind", "precision", *(["kernel"] if kernels else ())]
    return Table([*words, "ms", "share"], rows, words=len(words))


def precision_table(profile: Profile) -> Table:
    """Return the time of each precision and of the reformats."""
    return _sums("precision", profile, profile.owners_ms(), Counter(layer.owner for layer in profile.layers))


def kind_table(profile: Profile, top: int | None = None) -> Table:
    """Return the time of each kind of layer; those beyond `top` are one row."""
    return _sums("kind", profile, profile.kinds_ms(), Counter(layer.kind for layer in profile.layers), top)


def part_table(change: Change) -> Table:
    """Return where the difference is, in parts that add up to it."""
    sides = (change.before, change.after)
    rows = [_difference([part.name, _to(*part.counts)], part.before_ms, part.after_ms) for part in change.parts]
    counts = _to(*(len(side.layers) for side in sides))
    rows.append(_difference(["all layers", counts], sides[0].layers_ms, sides[1].layers_ms, "total"))
    return Table(["what", "layers", *(f"ms in {name}" for name in change.names), "difference"], rows, words=2)


def group_table(change: Change, top: int) -> Table:
    """Return the layers that changed most."""
    rows = []
    for group in change.most_changed()[:top]:
        before_ms, after_ms = (total_ms(side) for side in (group.before, group.after))
        words = [group.name, group.kinds, _to(*(name or "none" for name in group.precisions))]
        rows.append(_difference(words, before_ms, after_ms))
    return Table(["layer", "kind", "precision", "ms before", "after", "difference"], rows, words=3)


def _difference(words: list[str], before_ms: float, after_ms: float, kind: Literal["", "total"] = "") -> Row:
    return Row([*words, _ms(before_ms), _ms(after_ms), f"{after_ms - before_ms:+.2f}"], kind)


def _to(before: object, after: object) -> str:
    return str(before) if before == after else f"{before} to {after}"


def _owners(profile: Profile) -> str:
    shares = ", ".join(f"{owner} {profile.share(ms):.0%}" for owner, ms in profile.owners_ms().items())
    return f"{profile.latency_ms:.2f} ms a call: {shares}"


def _figures(profile: Profile) -> Block:
    shares = [Figure(f"{profile.share(ms):.0%}", "", owner) for owner, ms in list(profile.owners_ms().items())[:3]]
    return Figures([Figure(f"{profile.latency_ms:.2f}", "ms", "a call"), *shares])


def _bars(*profiles: Profile, names: Sequence[str] = ("all layers",)) -> Block:
    return stacked(
        {name: profile.owners_ms() for name, profile in zip(names, profiles, strict=True)},
        {name: profile.layers_ms for name, profile in zip(names, profiles, strict=True)},
    )


def _changed(change: Change) -> Section:
    return Section(
        "What changed",
        [
            *(Note(sentence, "warning") for sentence in change.reasons()),
            _bars(change.before, change.after, names=change.names),
            part_table(change),
            group_table(change, TOP),
        ],
    )


def _sums(
    what: str, profile: Profile, sums_ms: Mapping[str, float], counts: Mapping[str, int], top: int | None = None
) -> Table:
    pairs = list(sums_ms.items())
    rows = [Row([name, f"{counts[name]}", _ms(ms), Share(profile.share(ms))]) for name, ms in pairs[:top]]
    if rest := dict(pairs[len(rows) :]):
        count, ms = sum(counts[name] for name in rest), sum(rest.values())
        rows.append(Row([f"{len(rest)} more", f"{count}", _ms(ms), Share(profile.share(ms))]))
    return Table([what, "layers", "ms", "share"], rows)


def _ms(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.2f}"
