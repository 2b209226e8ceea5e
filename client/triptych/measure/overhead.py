"""What a served detector costs beyond the same work in one process, and what would take each part of it away.

Pure functions. The parts add up: what the loop spends between its steps, and nothing names, is a row of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from triptych.contract import DETECTOR, POSTPROCESS, PREPROCESS
from triptych.measure.attribution import OVERHEAD, Breakdown, Source
from triptych.measure.own_loop import Steps
from triptych.measure.ratio import CONFIDENCE
from triptych.measure.run_file import Environment, ImageSet

CLIENT = "client"
"""The client's own stage in a `Breakdown`: what it does before it sends and after the answer came."""

REST = "rest"
"""What the loop spends between its steps, which no step names."""

WORTH_A_WORD_MS = 0.1
"""A row that costs less needs no advice."""


@dataclass(frozen=True)
class Setting:
    """How the two sides ran.

    Attributes:
        runtime: what ran the detector on both.
        loop_threads: CPU threads of the loop's runtime; None on a GPU.
        served_threads: of each instance of the server; None on a GPU.
        instances: of the server's detector.
        max_queue_delay_us: how long its dynamic batching may hold a request back.
        users: requests in flight at once; the loop has one image at a time.
        apart: the share of the images that the server decodes in a process of its own, 0..1.
    """

    runtime: str
    loop_threads: int | None
    served_threads: int | None
    instances: int
    max_queue_delay_us: int
    users: int
    apart: float

    @property
    def other_threads(self) -> bool:
        """Whether the loop's runtime has other threads than the server's."""
        return self.loop_threads != self.served_threads


@dataclass(frozen=True)
class Row:
    """One owner of the difference.

    Attributes:
        owner: who.
        loop_ms: milliseconds of an image in the loop; 0 where the loop has nothing of the kind.
        served_ms: milliseconds of a served request.
        advice: what would take the difference away; empty where it is too small for a word.
    """

    owner: str
    loop_ms: float
    served_ms: float
    advice: str = ""

    @property
    def difference_ms(self) -> float:
        """What the service costs more; below zero, what it saves."""
        return self.served_ms - self.loop_ms


@dataclass(frozen=True)
class Overhead:
    """The loop and the service, in turn, on the same images; all milliseconds are means.

    Attributes:
        started: when, UTC, ISO 8601.
        environment: where.
        images: which.
        setting: how the two sides ran.
        frames: images of each side.
        agreed: of them, on how many both sides found the same objects.
        source: where the server's part comes from.
        loop_ms: an image in the loop.
        served_ms: a request by the client's clock.
        low_ms, high_ms: 95% interval of the difference, from the rounds.
        rows: who has the difference; they add up to it.
        command: what was typed.
    """

    started: str
    environment: Environment
    images: ImageSet
    setting: Setting
    frames: int
    agreed: int
    source: Source
    loop_ms: float
    served_ms: float
    low_ms: float
    high_ms: float
    rows: list[Row]
    command: list[str]

    @property
    def difference_ms(self) -> float:
        """What a served request takes longer than the loop."""
        return self.served_ms - self.loop_ms

    @property
    def sentence(self) -> str:
        """The result."""
        more = "more" if self.difference_ms >= 0 else "less"
        low_ms, high_ms = sorted((abs(self.low_ms), abs(self.high_ms)))
        is_certain = self.low_ms * self.high_ms > 0
        between = f"{low_ms:.1f} to {high_ms:.1f}" if is_certain else "may be chance"
        first = max(self.rows, key=lambda row: row.difference_ms)
        most = f"; most of it is {first.owner}, {first.difference_ms:.1f} ms" if is_certain and more == "more" else ""
        return (
            f"served, an image takes {self.served_ms:.1f} ms, and {self.loop_ms:.1f} ms in a loop of its own: "
            f"{abs(self.difference_ms):.1f} ms {more} ({between}){most}"
        )

    @property
    def advice(self) -> list[Row]:
        """The rows that cost enough for a word, the most first."""
        return sorted((row for row in self.rows if row.advice), key=lambda row: -row.difference_ms)


def rows_of(
    setting: Setting, loop_ms: float, steps: Steps, inference_ms: float, served: Breakdown, input_wh: tuple[int, int]
) -> list[Row]:
    """Return who has the difference between a loop and a service.

    Args:
        setting: how they ran.
        loop_ms: the loop's mean, its steps and what is between them.
        steps: the means of its steps.
        inference_ms: what inference takes in this process with the server's threads.
        served: the mean request, with the client's own part as a stage of the client.
        input_wh: the size of the detector's input, in pixels.
    """

    def stage(name: str, *parts: str) -> float:
        return sum(served.stages[name][part] for part in parts)

    copies_ms = sum(stage(name, "input", "output") for name in served.stages)
    queue_ms = sum(stage(name, "queue") for name in served.stages)
    threads = (
        [Row("threads", 0, inference_ms - steps.inference, _threads_advice(setting))] if setting.other_threads else []
    )
    alike_ms = steps.inference if not threads else inference_ms
    shown = [
        Row(
            "decoding",
            steps.decode + steps.letterbox,
            stage(PREPROCESS.name, "infer"),
            _decoding_advice(setting, steps),
        ),
        *threads,
        Row(
            "inference",
            steps.inference,
            stage(DETECTOR.name, "infer") - (alike_ms - steps.inference),
            _inference_advice(setting),
        ),
        Row(
            "suppression",
            steps.suppression,
            stage(POSTPROCESS.name, "infer"),
            "a step into one more process; a higher --score-threshold of the build leaves it fewer candidates",
        ),
        Row("copies", 0, copies_ms, _copies_advice(input_wh)),
        Row("queue", 0, queue_ms, _queue_advice(setting)),
        Row(OVERHEAD, 0, served.ensemble_overhead_ms, "a request of several images (detect_batch) has it once"),
        Row(
            "transport",
            0,
            served.network_and_client_ms,
            "gRPC both ways; send smaller files (JPEG, no larger than the detector needs) from the same machine, or "
            "several images in a request (detect_batch)",
        ),
        Row(
            CLIENT,
            0,
            served.client[CLIENT],
            "it builds the request and reads the answer; give it bytes and not arrays, which it encodes as PNG, and "
            "keep one client for all requests",
        ),
        Row(REST, loop_ms - sum(steps), 0),
    ]
    return [row if row.difference_ms >= WORTH_A_WORD_MS else replace(row, advice="") for row in shown]


def _threads_advice(setting: Setting) -> str:
    loop, served = setting.loop_threads, setting.served_threads
    return (
        f"the loop has {loop} threads, and each of the server's {setting.instances} instances {served}, which answers "
        f"more requests a second; publish it with --instances 1 --threads {loop} if one request at a time counts"
    )


def _inference_advice(setting: Setting) -> str:
    if setting.users > 1 and setting.instances > 1:
        return (
            f"up to {min(setting.users, setting.instances)} instances work at once and share the machine's cores and "
            "memory: each takes longer, and together they answer more; --instances 1 has them take turns"
        )
    return (
        "the stage runs in a process of its own, while Triton and the other stages want the same cores; more cores, or "
        "a target in one of Triton's own backends (in the container)"
    )


def _decoding_advice(setting: Setting, steps: Steps) -> str:
    own = f"a loop that begins with decoded pixels leaves {steps.decode:.1f} ms of the same work to somebody else"
    if setting.apart:
        return (
            f"{setting.apart:.0%} of the images are no plain JPEGs: the server decodes them in one more process, since "
            f"they may crash it; send JPEG; {own}"
        )
    return f"the stage runs in a process of its own, and hands the pixels on; {own}"


def _copies_advice(input_wh: tuple[int, int]) -> str:
    width, height = input_wh
    return (
        f"{width * height * 3 / 1e6:.1f} MB of pixels go from process to process; a detector of a smaller size, or a "
        "target in one of Triton's own backends (in the container), copies less"
    )


def _queue_advice(setting: Setting) -> str:
    if setting.max_queue_delay_us:
        return (
            f"dynamic batching holds requests back for up to {setting.max_queue_delay_us / 1000:g} ms; publish it with "
            "--max-queue-delay-us 0 if one request at a time counts"
        )
    if setting.users > 1:
        return (
            f"{setting.users} users share {setting.instances} instances; fewer at once, more --instances where cores "
            "are idle, or a faster detector"
        )
    return "with one user nothing waits: this is the step from Triton into each stage's process"


def interval_ms(differences_ms: Sequence[float]) -> tuple[float, float]:
    """Return the 95% interval of a mean, from the means of rounds: Student's t; two or more rounds."""
    from scipy.special import stdtrit  # here: it takes long to import

    values = np.array(differences_ms)
    half = stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def mean_steps(steps: Sequence[Steps]) -> Steps:
    """Return the mean of each step."""
    return Steps(*map(float, np.mean(steps, axis=0)))
