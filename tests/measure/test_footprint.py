"""What the processes of a server hold: which of it grows, and in a sentence."""

from __future__ import annotations

from triptych.measure.footprint import Footprint, GpuFootprint, ProcessFootprint, Trend, footprint_sentence, growths
from triptych.measure.slope import Slope

STEADY = Trend(10, 11, 12, Slope(0, -1, 1))
GROWING = Trend(100, 180, 180, Slope(12.34, 8.1, 15.9))


def process(name: str, memory_mb: Trend = STEADY, files: Trend = STEADY, to_s: float = 300.0) -> ProcessFootprint:
    return ProcessFootprint(name, "1", 7, 0.0, to_s, memory_mb, files, STEADY)


def footprint(*processes: ProcessFootprint, gpu: Trend = STEADY) -> Footprint:
    return Footprint(1.0, 300.0, list(processes), [GpuFootprint(0, "a GPU", gpu)])


def test_what_surely_grows_is_named() -> None:
    seen = footprint(process("preprocess"), process("detector", GROWING, GROWING), gpu=GROWING)
    assert list(map(str, growths(seen, 120, 1.0))) == [
        "detector 1 (process 7) grows by 12.3 (8.1 to 15.9) MB a minute",
        "detector 1 (process 7) grows by 12.3 (8.1 to 15.9) open files a minute",
        "memory in use on GPU 0 by all programs grows by 12.3 (8.1 to 15.9) MB a minute",
    ]


def test_what_may_be_chance_or_the_beginning_does_not_grow() -> None:
    assert not list(growths(footprint(process("detector", Trend(1, 9, 9, Slope(5, 0.9, 9)))), 120, 1.0))
    assert not list(growths(footprint(process("detector", Trend(1, 9, 9, None))), 120, 1.0))
    assert not list(growths(footprint(process("detector", GROWING, to_s=60)), 120, 1.0))


def test_the_sentence_is_of_those_that_live_at_the_end() -> None:
    seen = footprint(process("detector", GROWING, to_s=100), process("preprocess"), process("detector"))
    sentence = "the server holds 22 MB, 22 open files and 22 threads in 2 processes; 11 MB of GPU 0 are in use"
    assert footprint_sentence(seen) == sentence
    assert seen.processes[0].title == "detector 1 (process 7)"


def test_a_trend_is_of_its_samples() -> None:
    trend = Trend.of([0.0, 1.0, 2.0], [5.0, 9.0, 7.0])
    assert (trend.first, trend.last, trend.max, trend.slope) == (5, 7, 9, None)
