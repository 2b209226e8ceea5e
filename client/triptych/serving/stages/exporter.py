"""Show counters of a model's process among Triton's own metrics.

Triton's interface for custom metrics has traps, seen with 2.51 and read in reports of later releases:

- Two processes that give a metric the same labels share it, and the first one to end frees it: the next use ends the
  server. So each process adds its own id as a label, and whoever reads the metrics sums over `process`.
- Two threads that use a metric at a time end the server. So one thread of our own talks to Triton. The one that answers
  requests only adds numbers.
- A metric that is left to Python's last breath makes the process crash as it ends. So `close` deletes them all.
- A call takes about 20 µs, and a process that dies within one hangs its model's unloading. So we make few: once a
  second, for what has changed.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

PERIOD_S = 1.0
"""How old what Triton shows may be."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Family:
    """One metric, with a series for each value of its label.

    Attributes:
        name: as Prometheus knows it; that of a counter ends in `_total`.
        help: a sentence for whoever reads the metrics.
        labels: the names of its labels, without `process`.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()


class Exporter:
    """Adds up numbers and hands them to Triton from a thread of its own.

    A Triton that takes no metrics gets none, after a line in its log: the stage serves all the same.
    """

    def __init__(self, backend: Any, counters: Iterable[Family], tick: Callable[[Exporter], None]) -> None:
        """Start.

        Args:
            backend: the module `triton_python_backend_utils`, which only a model's process has.
            counters: shown with 0 from the start, because Prometheus sees no increase in a series that is new.
                Those with labels begin when they are first counted, or with `add` of 0.
            tick: called in the exporter's thread before numbers are handed over, to `add` and `set` what it knows.
        """
        self._backend = backend
        self._tick = tick
        self._labels = {"process": str(os.getpid())}
        self._pending: Counter[tuple[Family, tuple[str, ...]]] = Counter()
        self._lock = threading.Lock()
        self._families: dict[Family, Any] = {}
        self._metrics: dict[tuple[Family, tuple[str, ...]], Any] = {}
        for family in counters:
            self.add(family, 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def add(self, counter: Family, amount: int, *values: str) -> None:
        """Add to a counter; `values` are those of its labels."""
        with self._lock:
            self._pending[counter, values] += amount

    def set(self, gauge: Family, value: float, *values: str) -> None:
        """Set a gauge; only `tick` may do so, because it talks to Triton."""
        self._metric(gauge, values, self._backend.MetricFamily.GAUGE).set(value)

    def close(self) -> None:
        """Hand over what is left, and take everything back from Triton. Call it before the process ends."""
        self._stop.set()
        self._thread.join()
        self._metrics.clear()
        self._families.clear()

    def _run(self) -> None:
        try:
            self._flush()
            while not self._stop.wait(PERIOD_S):
                self._flush()
            self._flush()
        except Exception:
            _LOG.exception("Triton takes no metrics of ours, so there are none; the model serves without them")

    def _flush(self) -> None:
        self._tick(self)
        with self._lock:
            pending, self._pending = self._pending, Counter()
        for (family, values), amount in pending.items():
            self._metric(family, values, self._backend.MetricFamily.COUNTER).increment(amount)

    def _metric(self, family: Family, values: tuple[str, ...], kind: Any) -> Any:
        if family not in self._families:
            self._families[family] = self._backend.MetricFamily(name=family.name, description=family.help, kind=kind)
        if (family, values) not in self._metrics:
            labels = self._labels | dict(zip(family.labels, values, strict=True))
            self._metrics[family, values] = self._families[family].Metric(labels=labels)
        return self._metrics[family, values]
