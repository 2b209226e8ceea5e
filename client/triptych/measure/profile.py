"""The profile of a detector: the time of each layer as its runtime measures it, as JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from triptych.measure.documents import Format
from triptych.measure.run_file import Environment
from triptych.runtimes._layers import Layer

VERSION: Final = 1

REFORMATS = "reformats"
"""The owner of the time of layers that calculate nothing, whatever their precision."""

BITS = {"fp32": 32, "fp16": 16, "bf16": 16, "int8": 8}

FAR = 0.25
"""From this share of a call on, its layers add up to something else than it takes without the profile."""

NAMED = 3
"""Layers that a sentence names."""


@dataclass(frozen=True, kw_only=True)
class LayerTime(Layer):
    """A layer and its time.

    Attributes:
        name: the runtime's.
        kind: the runtime's word for what it does.
        precision: what it calculates in: "fp32", "fp16", "bf16" or "int8"; another type by the runtime's word.
        kernel: what runs it, by the runtime's word; empty if it does not say.
        operators: what it stands for, by the names in the ONNX; none if the runtime added it.
        is_reformat: whether it gives values another layout or precision, and calculates nothing.
        ms: in a call, the mean of all, in milliseconds.
    """

    ms: float

    @property
    def owner(self) -> str:
        """Whose its time is: a precision's, or that of the reformats."""
        return REFORMATS if self.is_reformat else self.precision


@dataclass(frozen=True)
class Profile:
    """The layers of a detector, each with its time in a call.

    Attributes:
        started: when the measurement began, UTC, ISO 8601.
        model: what was profiled: a file's name, or a version of the detector.
        sha256: of the file.
        precision: what the file was made for.
        runtime: a key of `triptych.runtimes.RUNTIMES`; `environment` has its version.
        batch: images in a call; they are random pixels.
        threads: CPU threads; None on a GPU.
        runs: calls without the profile, and as many with it, in turn.
        latency_ms: the mean of a call without the profile.
        profiled_ms: the mean of a call with it, which costs time of its own.
        layers: as the runtime lists them.
        environment: where; with the detector, if a version was profiled.
        command: what was typed.
        version: of this format.
    """

    started: str
    model: str
    sha256: str
    precision: str
    runtime: str
    batch: int
    threads: int | None
    runs: int
    latency_ms: float
    profiled_ms: float
    layers: list[LayerTime]
    environment: Environment
    command: list[str]
    version: Literal[1] = VERSION

    @property
    def layers_ms(self) -> float:
        """What the layers add up to."""
        return total_ms(self.layers)

    def share(self, ms: float) -> float:
        """Return a time's share of all layers, 0..1."""
        return ms / self.layers_ms if self.layers_ms else 0.0

    def owners_ms(self) -> dict[str, float]:
        """Return the time of each precision and of the reformats, the longest first."""
        return _sums((layer.owner, layer.ms) for layer in self.layers)

    def kinds_ms(self) -> dict[str, float]:
        """Return the time of each kind of layer, the longest first."""
        return _sums((layer.kind, layer.ms) for layer in self.layers)

    def slowest(self) -> list[LayerTime]:
        """Return the layers, the one that takes longest first."""
        return sorted(self.layers, key=lambda layer: -layer.ms)

    def with_weights(self) -> list[LayerTime]:
        """Return the layers that have weights."""
        return [layer for layer in self.layers if layer.has_weights]

    def left_wide(self) -> list[LayerTime]:
        """Return the layers with weights that calculate in more bits than the file was made for, the slowest first."""
        bits = BITS.get(self.precision, max(BITS.values()))
        return [layer for layer in self.slowest() if layer.has_weights and BITS.get(layer.precision, 0) > bits]

    def sentences(self) -> list[str]:
        """Say what the profile shows."""
        return [self._latency(), *self._doubt(), self._owners(), *self._weights(), self._slowest()]

    def _doubt(self) -> list[str]:
        apart = self.layers_ms / self.latency_ms - 1
        if abs(apart) < FAR:
            return []
        return [
            f"the layers are {abs(apart):.0%} {'above' if apart > 0 else 'below'} the call without the profile: it "
            "costs as much, the machine did other work, or time passes between the layers; trust the shares more than "
            "the milliseconds"
        ]

    def _latency(self) -> str:
        images = f"{self.batch} image{'s' * (self.batch != 1)}"
        return (
            f"a call of {images} takes {self.latency_ms:.2f} ms without the profile and {self.profiled_ms:.2f} ms with "
            f"it, in which the layers add up to {self.layers_ms:.2f} ms (means of {self.runs} calls each)"
        )

    def _owners(self) -> str:
        def words(owner: str, ms: float) -> str:
            count = sum(layer.is_reformat for layer in self.layers)
            return f"{count} {owner} {self.share(ms):.0%}" if owner == REFORMATS else f"{owner} {self.share(ms):.0%}"

        return f"of the layers' time: {', '.join(words(*pair) for pair in self.owners_ms().items())}"

    def _weights(self) -> list[str]:
        if BITS.get(self.precision) in (None, max(BITS.values())):
            return []
        count, wide = len(self.with_weights()), self.left_wide()
        if not wide:
            return [f"all {count} layers with weights calculate in {self.precision}"] if count else []
        precisions = " and ".join(dict.fromkeys(layer.precision for layer in wide))
        some = f"all {count}" if len(wide) == count else f"{len(wide)} of {count}"
        left = f"{some} layers with weights stayed in {precisions}"
        return [f"{left}, with {self.share(total_ms(wide)):.0%} of the time: {_named(wide)}"]

    def _slowest(self) -> str:
        return f"the slowest: {_named(self.slowest())}"


def total_ms(layers: Iterable[LayerTime]) -> float:
    """Return the time of some layers together."""
    return sum(layer.ms for layer in layers)


def _sums(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    sums: defaultdict[str, float] = defaultdict(float)
    for name, ms in pairs:
        sums[name] += ms
    return dict(sorted(sums.items(), key=lambda pair: -pair[1]))


def _named(layers: list[LayerTime]) -> str:
    shown = ", ".join(f"{layer.name} {layer.ms:.2f} ms" for layer in layers[:NAMED])
    more = len(layers) - NAMED
    return shown + (f" and {more} more" if more > 0 else "")


FORMAT = Format("profile", Profile, VERSION, mark="layers")

read, write = FORMAT.read, FORMAT.write
