"""Send an image at a fixed rate, whatever the answers do, and print the latency from when each request was due.

python examples/fixed_rate.py street.jpg 10 30
"""

import asyncio
import sys
import time
from pathlib import Path

import numpy as np

from triptych import AsyncDetectionClient
from triptych.errors import RequestError


async def main(image: str, rate_per_s: float, duration_s: float, address: str = "127.0.0.1:8001") -> None:
    """Give each request a task of its own, so that a slow answer delays no other request."""
    encoded = Path(image).read_bytes()
    async with AsyncDetectionClient(address, timeout_s=5) as client:

        async def request(due: float) -> float | None:
            await asyncio.sleep(due - time.perf_counter())
            try:
                await client.detect(encoded)
            except RequestError as error:
                print(error, file=sys.stderr)
                return None
            return (time.perf_counter() - due) * 1000

        start = time.perf_counter()
        due = [start + number / rate_per_s for number in range(round(rate_per_s * duration_s))]
        latencies_ms = [latency for latency in await asyncio.gather(*map(request, due)) if latency is not None]
    p50, p95 = np.percentile(latencies_ms, [50, 95]) if latencies_ms else (np.nan, np.nan)
    print(f"{len(latencies_ms)} of {len(due)} requests answered, p50 {p50:.1f} ms, p95 {p95:.1f} ms")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:]))
