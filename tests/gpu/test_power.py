"""Power on a real GPU: the counter of energy and the gauge of power must tell the same story, cheaply."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from triptych.machine import nvidia_gpus
from triptych.measure.power import sampler
from triptych.measure.power.nvml import Nvml
from triptych.measure.power.sampler import PowerSampler, Span

pytestmark = pytest.mark.gpu

LOAD_S = 2.0


@pytest.fixture
def load() -> Iterator[None]:
    """Multiply matrices all the while; without PyTorch the GPU idles, and the two must agree all the same."""
    if not nvidia_gpus():
        pytest.skip("there is no GPU")
    stop = threading.Event()

    def multiply() -> None:
        try:
            import torch
        except ImportError:
            return
        matrix = torch.rand((4096, 4096), device="cuda", dtype=torch.float16)
        while not stop.is_set():
            matrix @ matrix
            torch.cuda.synchronize()

    thread = threading.Thread(target=multiply)
    thread.start()
    time.sleep(2.0)  # the gauge is a mean of the last second on some GPUs
    yield
    stop.set()
    thread.join()


def test_energy_is_mean_power_times_time(load: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PowerSampler, "_open", lambda self: self._sources.append(Nvml(set(), {})))
    with PowerSampler("127.0.0.1:8001") as meter:
        time.sleep(0.5)
        began_s = time.monotonic()
        time.sleep(LOAD_S)
        ended_s = time.monotonic()
        time.sleep(0.5)
        power = meter.stop(Span(began_s, ended_s, LOAD_S / 4, 4), 0)
    assert power.devices
    for device in power.devices:
        mean_w = device.mean("power_w")
        assert device.energy_j is not None, device.unknown
        assert mean_w is not None
        assert device.energy_j == pytest.approx(mean_w * power.seconds, rel=0.2)
        assert device.mean("sm_clock_mhz")
        assert device.throttling.known == 4
    assert power.sample_ms < 1000 * sampler.COST * power.period_s * 2
    print(f"{power.sample_ms:.2f} ms a sample of {len(power.devices)} GPUs, every {power.period_s:.2f} s")
