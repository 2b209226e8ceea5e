"""One shard: read its images, have a server detect what is in them, and write one file of rows.

Nothing is lost to a server that refuses, restarts or is gone for a while: a request waits and is sent again, until no
request of the shard was answered for `retry_s`. A request that a server fails at because of an image is cut in halves
until that image is alone, and has the reason in its row.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, TypeVar

from triptych.bulk.job import Job, part_name, paths_of
from triptych.bulk.places import Place
from triptych.bulk.rows import Source, row, to_parquet
from triptych.client import AsyncDetectionClient, Credentials
from triptych.detections import Detections
from triptych.errors import (
    AccessDenied,
    DeadlineExceeded,
    ImageError,
    InvalidRequest,
    RequestCancelled,
    RequestError,
    ServerFault,
)

FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 5.0
"""The pauses between two tries double from the first to the longest."""

READERS = 16
"""How many images a shard reads at a time."""

TRIALS = 3
"""How often an image is sent alone before it is taken for the one that ends a model's process."""

T = TypeVar("T")

_FINAL = (InvalidRequest, AccessDenied, RequestCancelled)
"""Errors that waiting does not cure."""


@dataclass(frozen=True)
class Settings:
    """How a shard is done; another run may choose otherwise.

    Attributes:
        source: where the images are, as `Place.of` takes it.
        out: where the results go, likewise.
        address: the servers, host:port with commas between them.
        credentials: how to connect.
        timeout_s: how long an answer may take.
        retry_s: how long to wait for a server that answers nothing.
        batch: images in one request.
        in_flight: requests that are with the server at a time.
    """

    source: str
    out: str
    address: str
    credentials: Credentials
    timeout_s: float
    retry_s: float
    batch: int
    in_flight: int


@dataclass(frozen=True)
class Done:
    """What came out of a shard."""

    shard: int
    images: int
    failed: int
    truncated: int
    classes: dict[str, int]


def do_shard(job: Job, settings: Settings, shard: int) -> Done:
    """Do one shard. To do it twice, or in two places at the same time, gives the same file.

    Raises:
        RequestError: the server refuses, or did not answer in time.
        ContractError: the list of images cannot be read, or the server's answers do not fit the contract.
        OSError: the file cannot be written.
    """
    out = Place.of(settings.out)
    rows = asyncio.run(_Shard(job, settings).rows(paths_of(out, shard)))
    out.write(part_name(shard), to_parquet(rows))
    names = Counter(item["name"] for item in chain.from_iterable(row["objects"] or () for row in rows))
    failed, truncated = (sum(bool(row[column]) for row in rows) for column in ("error", "truncated"))
    return Done(shard, len(rows), failed, truncated, dict(names))


@dataclass
class _Shard:
    """The work on one shard, and when a request of it was last answered."""

    job: Job
    settings: Settings
    answered_s: float = field(default_factory=time.monotonic)
    found: dict[int, tuple[Source, Detections]] = field(default_factory=dict)
    suspects: list[tuple[int, Source]] = field(default_factory=list)

    async def rows(self, paths: Sequence[str]) -> list[dict[str, Any]]:
        """Return the rows of these images, in their order."""
        address, credentials, timeout_s = self.settings.address, self.settings.credentials, self.settings.timeout_s
        self.source = Place.of(self.settings.source)
        with ThreadPoolExecutor(READERS) as self.readers:
            async with AsyncDetectionClient(address, timeout_s=timeout_s, credentials=credentials) as self.client:
                version = await self._patiently(self.client.detector_version)
                requests = iter(range(0, len(paths), self.settings.batch))
                await asyncio.gather(*(self._work(paths, requests) for _ in range(self.settings.in_flight)))
                for number, source in self.suspects:
                    self.found[number] = source, await self._judge(source)
                if await self._patiently(self.client.detector_version) != version:
                    version = None  # which of the two answered an image is not known
        return [row(*self.found[number], version) for number in range(len(paths))]

    async def _work(self, paths: Sequence[str], requests: Iterator[int]) -> None:
        """Read and send one part of the images after the other, as long as there are any."""
        loop = asyncio.get_running_loop()
        for start in requests:
            part = paths[start : start + self.settings.batch]
            sources = await asyncio.gather(*(loop.run_in_executor(self.readers, self._read, path) for path in part))
            for number, source in enumerate(sources, start):
                if source.error:
                    self.found[number] = source, Detections.failed(source.error)
            await self._detect([(number, source) for number, source in enumerate(sources, start) if not source.error])

    def _read(self, path: str) -> Source:
        name = f"{self.source.name}/{path}"
        try:
            return Source.of(name, self.source.read(path))
        except ImageError as error:
            return Source(name, error=str(error))

    async def _detect(self, sources: Sequence[tuple[int, Source]]) -> None:
        """Have a server detect what is in images, in as many requests as that takes."""
        if not sources:
            return
        alone = len(sources) == 1
        try:
            answers = await self._patiently(
                partial(self._ask, [source for _, source in sources]), final=() if alone else (DeadlineExceeded,)
            )
        except (InvalidRequest, DeadlineExceeded, ServerFault) as error:
            if not alone and (_is_deadly(error) or not isinstance(error, ServerFault)):
                half = len(sources) // 2
                await self._detect(sources[:half])
                await self._detect(sources[half:])
            elif _is_deadly(error):
                self.suspects.append(sources[0])
            elif isinstance(error, InvalidRequest):
                [(number, source)] = sources
                self.found[number] = source, Detections.failed(str(error))
            else:
                raise
        else:
            self.found |= {number: (source, found) for (number, source), found in zip(sources, answers, strict=True)}

    async def _judge(self, source: Source) -> Detections:
        """Send an image alone, under which a model's process died: another request of that time may have ended it."""
        for _ in range(TRIALS):
            try:
                [found] = await self._patiently(partial(self._ask, [source]))
            except ServerFault as error:  # noqa: PERF203
                if not _is_deadly(error):
                    raise
                reason = str(error)
            else:
                return found
        return Detections.failed(reason)

    async def _ask(self, sources: Sequence[Source]) -> list[Detections]:
        return await self.client.detect_batch(
            [source.data for source in sources],
            score_threshold=self.job.score_threshold,
            iou_threshold=self.job.iou_threshold,
        )

    async def _patiently(self, ask: Callable[[], Awaitable[T]], final: tuple[type[RequestError], ...] = ()) -> T:
        """Ask until there is an answer, an error that waiting does not cure, or no patience any more."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                answer = await ask()
            except RequestError as error:  # noqa: PERF203
                if isinstance(error, (*final, *_FINAL)) or _is_deadly(error):
                    raise
                if time.monotonic() - self.answered_s > self.settings.retry_s:
                    raise
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311
                pause_s = min(2 * pause_s, MAX_PAUSE_S)
            else:
                self.answered_s = time.monotonic()
                return answer


def _is_deadly(error: RequestError) -> bool:
    return isinstance(error, ServerFault) and error.process_died
