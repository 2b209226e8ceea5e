"""Sampling power: a stand-in for the driver, counters of a processor, and the metrics of a server elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pynvml
import pytest

from support.nvml import FakeGpu, FakeNvml
from triptych.measure.power import nvml, sampler
from triptych.measure.power.figures import Gauges, Identity, Power
from triptych.measure.power.rapl import Rapl
from triptych.measure.power.sampler import PowerSampler, Span
from triptych.measure.power.source import Reading


class FakeRapl:
    """A processor whose counter rises by 60 W."""

    def __init__(self) -> None:
        self.identities = {"intel-rapl:0": Identity("CPU", "package-0", "intel-rapl:0", "rapl")}
        self.period_s, self.missing = 0.1, ""
        self._began_s = time.monotonic()

    def read(self) -> dict[str, Reading]:
        return {"intel-rapl:0": Reading(60 * (time.monotonic() - self._began_s))}

    def objection(self, answered: int) -> str:
        return ""

    def close(self) -> None:
        pass


def measured(
    address: str, seconds: float = 1.0, answered: int = 10, during: Callable[[], None] = lambda: None
) -> Power:
    """Sample a window in the middle of the time."""
    with PowerSampler(address) as meter:
        time.sleep(0.25)
        began_s = time.monotonic()
        time.sleep(seconds / 2)
        during()
        time.sleep(seconds / 2)
        ended_s = time.monotonic()
        time.sleep(0.25)
        return meter.stop(Span(began_s, ended_s, seconds / 5, 5), answered)


def test_gpus_and_processors_of_a_server_here(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu("GPU-1", watts=400.0)

    def hot() -> None:
        gpu.bits = pynvml.nvmlClocksEventReasonSwPowerCap

    fake = FakeNvml(gpu)
    monkeypatch.setattr(nvml, "pynvml", fake)
    monkeypatch.setattr(sampler, "Rapl", FakeRapl)
    power = measured(f"127.0.0.1:{port}", 2.0, during=hot)
    card, processor = power.devices
    assert power.kinds == ["GPU", "CPU"]
    for device, watts in ((card, 400.0), (processor, 60.0)):
        assert device.energy_j is not None
        assert device.uncertainty_j is not None
        assert abs(device.energy_j - watts * power.seconds) <= device.uncertainty_j
    assert card.mean("power_w") == 400.0
    assert card.throttling.reasons == ["power cap"]
    assert 0 < len(card.throttling.intervals) < card.throttling.known
    assert 0 not in card.throttling.intervals
    assert processor.intervals == [Gauges()] * 5, "it says nothing else"
    assert power.missing == []
    assert power.sample_ms > 0
    assert fake.open == 0


def test_only_gpus_with_processes_of_the_server_count(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    server = sampler._server(f"127.0.0.1:{port}")
    assert server
    model = server.children()[0]
    gpus = FakeGpu("GPU-1", pids=[1]), FakeGpu("GPU-2", pids=[model.pid])
    monkeypatch.setattr(nvml, "pynvml", FakeNvml(*gpus))
    power = measured(f"127.0.0.1:{port}", 0.2)
    assert [device.identity.id for device in power.devices if device.identity.kind == "GPU"] == ["GPU-2"]


def test_a_driver_that_begins_anew_is_no_figure(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu("GPU-1")

    def restart() -> None:
        gpu.before_j = 0.0

    monkeypatch.setattr(nvml, "pynvml", FakeNvml(gpu))
    (device,) = measured(f"127.0.0.1:{port}", 0.6, during=restart).of("GPU")
    assert (device.energy_j, device.unknown) == (None, "its counter began anew meanwhile")
    assert device.mean("power_w") == 400


def test_a_gpu_without_a_counter_has_its_gauges(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "pynvml", FakeNvml(FakeGpu("GPU-1", energy=False)))
    power = measured(f"127.0.0.1:{port}", 0.6)
    (device,) = power.of("GPU")
    assert (device.energy_j, device.unknown) == (None, "it has no counter of energy")
    assert device.mean("power_w") == 400
    assert "GPU" not in power.kinds


def test_a_machine_without_either_says_why(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "pynvml", FakeNvml())
    monkeypatch.setattr(sampler, "Rapl", lambda: Rapl(tmp_path / "nothing"))
    power = measured(f"127.0.0.1:{port}", 0.1)
    assert power.devices == []
    assert [sentence.split(" (")[0] for sentence in power.missing] == [
        "NVIDIA's driver on this machine shows no GPU of the server",
        "this machine shows no energy of its processor",
    ]


def test_this_machine_s_gpus_are_not_those_of_a_server_elsewhere(
    port: int, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even if a Triton listens here on that port, or a tunnel leads there from here."""
    monkeypatch.setattr(nvml, "pynvml", FakeNvml(FakeGpu("GPU-1")))
    for address in (f"gpu-host.invalid:{port}", nobody):
        with PowerSampler(address, f"http://{nobody}/metrics") as meter:
            power = meter.stop(Span(0, 1, 0.5, 2), 10)
        assert power.devices == []
        assert power.missing[0].startswith("the server is not seen on this machine")
        assert "cannot be read" in power.missing[1]


def test_samples_are_bounded(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "MOST_SAMPLES", 16)
    monkeypatch.setattr(nvml, "pynvml", FakeNvml(FakeGpu("GPU-1")))
    power = measured(f"127.0.0.1:{port}", 1.6)
    assert power.period_s > 0.15
    (device,) = power.of("GPU")
    assert device.energy_j is not None
    assert device.uncertainty_j is not None
    assert abs(device.energy_j - 400 * power.seconds) <= device.uncertainty_j


def test_a_driver_that_hangs_does_not_hold_up_the_run(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeNvml(FakeGpu("GPU-1"))
    monkeypatch.setattr(nvml, "pynvml", fake)
    monkeypatch.setattr(sampler, "END_TIMEOUT_S", 0.1)
    goes_on = threading.Event()

    def hang(_gpu: FakeGpu) -> int:
        goes_on.wait(30)
        return 0

    began_s = time.monotonic()
    with PowerSampler(f"127.0.0.1:{port}") as meter:
        monkeypatch.setattr(fake, "nvmlDeviceGetPowerUsage", hang)
        time.sleep(0.3)
        power = meter.stop(Span(began_s, began_s + 0.2, 0.1, 2), 10)
    assert power.of("GPU")[0].unknown == "its counter could not be read all the time"
    goes_on.set()
    meter._thread.join(10)


@pytest.mark.parametrize(("at_s", "part"), [(9.9, None), (10, 0), (11.9, 0), (12, 1), (19.9, 4), (20.4, 4), (21, None)])
def test_parts_are_those_of_the_run(at_s: float, part: int | None) -> None:
    assert Span(10.0, 20.5, 2.0, 5).part(at_s) == part
