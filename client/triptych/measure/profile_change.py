"""What a profile changed against another one's: which layers moved to which precision, and where the time went.

The layers of two files, or of two runtimes, are fused in different ways. So they are compared in groups: the smallest
sets of layers on both sides that stand for the same operators of the ONNX.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from triptych.errors import ContractError
from triptych.measure.profile import BITS, REFORMATS, LayerTime, Profile, total_ms

NO_FASTER = 1.1
"""Below this speed-up, a narrower precision is said to be no faster, and why."""

WORTH_A_WORD = 0.05
"""The share of the layers' time from which a difference is named as a reason."""


@dataclass(frozen=True)
class Group:
    """Layers of both sides that stand for the same operators.

    Attributes:
        before, after: of each side; one of them may be empty.
    """

    before: list[LayerTime]
    after: list[LayerTime]

    @property
    def name(self) -> str:
        """The name of its slowest layer, of the newer side if it has one."""
        return _slowest(self.after or self.before).name

    @property
    def kinds(self) -> str:
        """The kind of each side's slowest layer, once where both are alike."""
        kinds = [_slowest(side).kind if side else "none" for side in (self.before, self.after)]
        return " to ".join(dict.fromkeys(kinds))

    @property
    def precisions(self) -> tuple[str, str]:
        """The precision of each side's slowest layer; empty where the side has none."""
        before, after = (_slowest(side).precision if side else "" for side in (self.before, self.after))
        return before, after

    @property
    def difference_ms(self) -> float:
        """What the newer side takes longer."""
        return total_ms(self.after) - total_ms(self.before)


@dataclass(frozen=True)
class Part:
    """A part of the difference: the groups that changed alike, or the reformats.

    Attributes:
        name: what they have in common.
        counts: layers before and after.
        before_ms, after_ms: their time.
    """

    name: str
    counts: tuple[int, int]
    before_ms: float
    after_ms: float

    @property
    def difference_ms(self) -> float:
        """What the newer side takes longer."""
        return self.after_ms - self.before_ms


@dataclass(frozen=True)
class Change:
    """A profile held against an earlier one.

    Attributes:
        before, after: the profiles.
        names: what to call them.
        groups: of layers that calculate.
        parts: they add up to the difference between the layers of both, the largest first.
    """

    before: Profile
    after: Profile
    names: tuple[str, str]
    groups: list[Group]
    parts: list[Part]

    @property
    def speedup(self) -> float:
        """How many times as fast a call became, without the profile."""
        return self.before.latency_ms / self.after.latency_ms

    @property
    def sentence(self) -> str:
        """The result."""
        before, after = self.names
        return (
            f"{after} takes {self.after.latency_ms:.2f} ms a call and {before} {self.before.latency_ms:.2f} ms: "
            f"{self.speedup:.2f} times as fast"
        )

    def most_changed(self) -> list[Group]:
        """Return the groups, the one that changed most first."""
        return sorted(self.groups, key=lambda group: -abs(group.difference_ms))

    def reasons(self) -> list[str]:
        """Say why a narrower precision is no faster; nothing where it is, or where none is narrower."""
        wide, narrow = (BITS.get(profile.precision, 0) for profile in (self.before, self.after))
        if not narrow < wide or self.speedup >= NO_FASTER:
            return []
        precision = self.after.precision
        reasons, left = [], self.after.left_wide()
        if left:
            count, share = len(self.after.with_weights()), self.after.share(total_ms(left))
            some = "none" if len(left) == count else f"only {count - len(left)}"
            reasons.append(
                f"{some} of its {count} layers with weights are in {precision}; those that are not have {share:.0%} of "
                "the time"
            )
        reasons += [
            f"{part.name} take {part.difference_ms:.2f} ms longer"
            for part in self.parts
            if part.difference_ms > WORTH_A_WORD * self.after.layers_ms
        ]
        return [f"why {precision} is no faster: {'; '.join(reasons)}"] if reasons else []


def compare(before: Profile, after: Profile) -> Change:
    """Hold a profile against an earlier one.

    Raises:
        ContractError: they have no operator in common, or other batches.
    """
    if before.batch != after.batch:
        raise ContractError(
            f"{after.model} was profiled with batches of {after.batch} and {before.model} with {before.batch}; "
            "profile both with the same --batch"
        )
    groups = list(_groups(before, after))
    if not any(group.before and group.after for group in groups):
        raise ContractError(
            f"{after.model} and {before.model} have no layer in common; compare two precisions or runtimes of one "
            "detector"
        )
    names = _names(before, after)
    parts = sorted(_parts(before, after, groups, names), key=lambda part: -abs(part.difference_ms))
    return Change(before, after, names, groups, parts)


def _groups(before: Profile, after: Profile) -> Iterator[Group]:
    """Yield the smallest sets of layers that share operators with none outside: union-find over the operators."""
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        while parents.setdefault(name, name) != name:
            name = parents[name]
        return name

    def key(layer: LayerTime) -> str:
        return root(layer.operators[0]) if layer.operators else ""

    sides = [[layer for layer in profile.layers if not layer.is_reformat] for profile in (before, after)]
    for layer in (*sides[0], *sides[1]):
        for operator in layer.operators[1:]:
            parents[root(operator)] = key(layer)
    found: dict[str, Group] = {}
    for number, side in enumerate(sides):
        for layer in side:
            if not layer.operators:
                yield Group(*([layer] if at == number else [] for at in range(2)))
                continue
            group = found.setdefault(key(layer), Group([], []))
            (group.after if number else group.before).append(layer)
    yield from found.values()


def _names(before: Profile, after: Profile) -> tuple[str, str]:
    if before.model != after.model:
        return before.model, after.model
    if before.runtime != after.runtime:
        return f"{before.model} on {before.runtime}", f"{after.model} on {after.runtime}"
    return f"{before.model} before", f"{after.model} after"


def _parts(before: Profile, after: Profile, groups: list[Group], names: tuple[str, str]) -> Iterator[Part]:
    alike: dict[str, list[Group]] = {}
    for group in groups:
        alike.setdefault(_what_changed(group, names), []).append(group)
    for name, some in alike.items():
        sides = [layer for group in some for layer in group.before], [layer for group in some for layer in group.after]
        yield Part(name, (len(sides[0]), len(sides[1])), total_ms(sides[0]), total_ms(sides[1]))
    reformats = [[layer for layer in profile.layers if layer.is_reformat] for profile in (before, after)]
    if any(reformats):
        yield Part(REFORMATS, (len(reformats[0]), len(reformats[1])), total_ms(reformats[0]), total_ms(reformats[1]))


def _what_changed(group: Group, names: tuple[str, str]) -> str:
    before, after = group.precisions
    if not (before and after):
        return f"layers of {names[0] if before else names[1]} alone"
    return f"layers in {after} on both sides" if before == after else f"layers from {before} to {after}"


def _slowest(layers: list[LayerTime]) -> LayerTime:
    return max(layers, key=lambda layer: layer.ms)
