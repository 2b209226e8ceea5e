"""A client outside: sends one image for some seconds from three connections, and prints what came of it as JSON.

usage: caller.py IMAGE CA SECONDS
"""

from __future__ import annotations

import json
import sys
import threading
import time

from triptych import Credentials, DetectionClient
from triptych.errors import TriptychError


def main(image: str, ca: str, seconds: float) -> None:
    counts: list[int] = []
    failures: list[str] = []
    end = time.monotonic() + seconds

    def call() -> None:
        credentials = Credentials(ca=ca) if ca else Credentials()
        with DetectionClient("localhost:8001", timeout_s=10, retries=0, credentials=credentials) as client:
            while True:
                try:
                    counts.append(len(client.detect(image)))
                except TriptychError as error:
                    failures.append(f"{type(error).__name__}: {error}")
                if time.monotonic() >= end:
                    return

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    json.dump({"objects": counts, "failures": failures}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
