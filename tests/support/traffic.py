"""Users who send images all the while that a test does something to the server."""

from __future__ import annotations

import threading
import time
from collections import Counter

import cv2
import numpy as np

from triptych import DetectionClient

USERS = 3


class Traffic:
    """Users who send images until they must stop, and what came back."""

    def __init__(self, address: str) -> None:
        noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        self.image = cv2.imencode(".jpg", noise)[1].tobytes()
        self.address = address
        self.outcomes: Counter[type[object]] = Counter()
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.user) for _ in range(USERS)]

    def user(self) -> None:
        with DetectionClient(self.address, retries=0, timeout_s=5) as client:
            while not self.stop.is_set():
                outcome: type[object]
                try:
                    outcome = type(client.detect(self.image))
                except Exception as error:
                    outcome = type(error)
                    time.sleep(0.05)
                with self.lock:
                    self.outcomes[outcome] += 1

    def __enter__(self) -> Traffic:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def take(self) -> Counter[type[object]]:
        with self.lock:
            outcomes, self.outcomes = self.outcomes, Counter()
        return outcomes

    def take_next(self, count: int) -> Counter[type[object]]:
        """Wait for `count` outcomes from now on, and take them."""
        self.take()
        outcomes: Counter[type[object]] = Counter()
        while sum(outcomes.values()) < count:
            time.sleep(0.02)
            outcomes += self.take()
        return outcomes

    @staticmethod
    def failures(outcomes: Counter[type[object]]) -> list[type[object]]:
        return [kind for kind in outcomes if kind.__name__ != "Detections"]
