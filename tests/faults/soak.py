"""Half an hour of everything: good, damaged and huge images from several users, and nothing grows."""

from __future__ import annotations

import threading
import time
from collections import Counter
from random import Random

from PIL import Image

from faults.load import ANSWERED, LOST, WRONG, Call, Tally, is_same
from faults.scenario import Bench, Outcome, Scenario, judge
from fuzz.files import mutate, seeds
from support.images import JPEG, gradient, save
from triptych import DetectionClient
from triptych.errors import TriptychError
from triptych.measure.footprint import footprint_sentence, growths
from triptych.measure.footprint_sampler import FootprintSampler
from triptych.measure.remarks import GROWTH_PER_MIN

USERS = 4
PAUSE_S = 0.15
TIMEOUT_S = 30.0


class _Mix:
    """Users who send what users send: most of it good, some of it damaged, some huge, some in batches."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._seeds = seeds()
        self._huge = [
            save(Image.fromarray(gradient(6000, 4000)), "JPEG"),
            save(Image.fromarray(gradient(3000, 2000)), "PNG"),
            save(Image.new("L", (30_000, 30_000)), "PNG"),  # more pixels than the limit
        ]
        self.calls: list[Call] = []
        self.refused_images: Counter[str] = Counter()
        self.stop = threading.Event()

    def user(self, number: int) -> None:
        random = Random(number)
        with DetectionClient(self._bench.service.address, retries=0, timeout_s=TIMEOUT_S) as client:
            while not self.stop.is_set():
                sent_s = time.monotonic()
                try:
                    outcome = self._send(client, random)
                except TriptychError as error:
                    outcome = type(error).__name__
                self.calls.append(Call(sent_s, time.monotonic(), outcome))
                self.stop.wait(PAUSE_S)

    def _send(self, client: DetectionClient, random: Random) -> str:
        """Send a good image, at times with bad ones in a batch: the good one must have its own answer."""
        kind = random.random()
        bad: list[bytes] = []
        if kind > 0.98:
            bad = [random.choice(self._huge)]
        elif kind > 0.6:
            for _ in range(random.choice((1, 3, 7))):
                files = self._seeds[random.choice(sorted(self._seeds))]
                bad.append(mutate(random.choice(files), random.choice(files), random))
        answers = client.detect_batch([*bad, JPEG]) if bad else [client.detect(JPEG)]
        self.refused_images.update("refused" if answer.error else "detected" for answer in answers[:-1])
        return ANSWERED if is_same(answers[-1], self._bench.good) else WRONG


def soak(bench: Bench) -> Outcome:
    """Send a mix for minutes, and sample every process of the server meanwhile."""
    mix = _Mix(bench)
    before, began_s = bench.service.models(), time.monotonic()
    threads = [threading.Thread(target=mix.user, args=(number,), daemon=True) for number in range(USERS)]
    with FootprintSampler(bench.service.address) as sampler:
        for thread in threads:
            thread.start()
        mix.stop.wait(bench.minutes * 60)
        footprint = sampler.stop()
    mix.stop.set()
    for thread in threads:
        thread.join(TIMEOUT_S + 10)
        if thread.is_alive():
            mix.calls.append(Call(time.monotonic(), time.monotonic(), LOST))
    tally = Tally.of(mix.calls, began_s)
    broken = judge(tally, may_fail=False)
    if bench.service.models() != before:
        broken.append("a model's process died")
    if footprint is None:
        return Outcome(tally, [*broken, "the server could not be seen"])
    broken += map(str, growths(footprint, 60, GROWTH_PER_MIN))
    lines = [f"{bench.minutes:g} minutes; {footprint_sentence(footprint)}"]
    for process in footprint.processes:
        trends = (("MB", process.memory_mb), ("files", process.files), ("threads", process.threads))
        figures = [
            f"{trend.first:.0f} to {trend.last:.0f} {what}, at most {trend.max:.0f}"
            + (f", {s.per_min:.2f} ({s.low:.2f} to {s.high:.2f}) a minute" if (s := trend.slope) else "")
            for what, trend in trends
        ]
        lines.append(f"{process.title}: {'; '.join(figures)}")
    images = mix.refused_images
    lines.append(f"beside the good images {images['detected']} others were detected in and {images['refused']} refused")
    return Outcome(tally, broken, ". ".join(lines))


SCENARIOS = [
    Scenario(
        "soak",
        "good, damaged and huge images, alone and in batches, from four users",
        "every good image has its answer, no process dies, and memory, open files and threads do not grow",
        soak,
    )
]
