"""NVML, with a stand-in for NVIDIA's library: figures, units, and which GPUs are the server's."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pynvml
import pytest

from support.nvml import FakeGpu, FakeNvml
from triptych import machine
from triptych.measure.power import nvml
from triptych.measure.power.figures import Gauges
from triptych.measure.power.nvml import THROTTLES, Nvml

Install = Callable[..., FakeNvml]

ONE, TWO = "GPU-11111111-aaaa", "GPU-22222222-bbbb"


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    def install(*gpus: FakeGpu, **options: Any) -> FakeNvml:
        fake = FakeNvml(*gpus, **options)
        monkeypatch.setattr(nvml, "pynvml", fake)
        monkeypatch.setattr(machine, "pynvml", fake)
        return fake

    return install


def test_the_stand_in_is_like_the_library() -> None:
    for name, ours in vars(FakeNvml).items():
        if name.startswith("nvml"):
            theirs = inspect.signature(getattr(pynvml, name)).parameters.values()
            needed = [one.name for one in theirs if one.default is one.empty]
            assert len(inspect.signature(ours).parameters) - 1 == len(needed), name


def test_every_figure_has_our_units(install: Install) -> None:
    fake = install(FakeGpu(ONE, watts=412.5, bits=pynvml.nvmlClocksEventReasonSwPowerCap))
    source = Nvml(set(), {})
    (reading,) = source.read().values()
    assert reading.energy_j == pytest.approx(5e6, abs=1000)
    assert reading.gauges == Gauges(412.5, 0.83, 20_000.0, 1980, 2619, 61, ["power cap"])
    (identity,) = source.identities.values()
    assert (identity.kind, identity.name, identity.id, identity.source, identity.limit_w) == (
        "GPU",
        "NVIDIA H100 80GB HBM3",
        ONE,
        "nvml",
        700.0,
    )
    source.close()
    assert fake.open == 0


def test_only_what_slows_against_everybodys_will_is_throttling(install: Install) -> None:
    everything = pynvml.nvmlClocksEventReasonAll
    gpu = FakeGpu(ONE, bits=pynvml.nvmlClocksEventReasonGpuIdle | pynvml.nvmlClocksEventReasonApplicationsClocksSetting)
    install(gpu)
    source = Nvml(set(), {})
    assert source.read()[ONE].gauges.throttled == []
    gpu.bits = everything
    assert source.read()[ONE].gauges.throttled == list(THROTTLES.values())


def test_an_old_driver_knows_throttling_by_its_old_name(install: Install) -> None:
    install(FakeGpu(ONE, bits=pynvml.nvmlClocksThrottleReasonHwThermalSlowdown), old=True)
    assert Nvml(set(), {}).read()[ONE].gauges.throttled == ["temperature, by hardware"]


def test_what_a_gpu_does_not_say_is_not_zero(install: Install) -> None:
    install(FakeGpu(ONE, energy=False, mig=True, limit_w=None))
    source = Nvml(set(), {})
    reading = source.read()[ONE]
    assert reading.energy_j is None
    assert reading.gauges.utilization is None, "NVML has none in MIG mode"
    assert reading.gauges.power_w == 400
    assert source.identities[ONE].limit_w is None
    assert source.identities[ONE].note.startswith("the whole board, with all its MIG instances")


@pytest.mark.parametrize(
    ("pids", "environment", "chosen", "note"),
    [
        ({20, 21}, {}, [TWO], ""),
        ({20}, {"CUDA_VISIBLE_DEVICES": "0"}, [TWO], ""),
        ({30}, {}, [ONE, TWO], "one of all of this machine"),
        ({30}, {"CUDA_VISIBLE_DEVICES": "1"}, [TWO], "as CUDA_VISIBLE_DEVICES"),
        ({30}, {"CUDA_VISIBLE_DEVICES": "1, 0"}, [TWO, ONE], "as CUDA_VISIBLE_DEVICES"),
        ({30}, {"CUDA_VISIBLE_DEVICES": "GPU-2222"}, [TWO], "as CUDA_VISIBLE_DEVICES"),
        ({30}, {"CUDA_VISIBLE_DEVICES": "MIG-one,MIG-two"}, [ONE], "as CUDA_VISIBLE_DEVICES"),
        ({30}, {"CUDA_VISIBLE_DEVICES": "1,-1,0"}, [TWO], "as CUDA_VISIBLE_DEVICES"),
        ({30}, {"CUDA_VISIBLE_DEVICES": ""}, [], ""),
    ],
)
def test_which_gpus_are_the_server_s(
    install: Install,
    pids: set[int],
    environment: dict[str, str],
    chosen: list[str],
    note: str,
) -> None:
    install(FakeGpu(ONE, pids=[10]), FakeGpu(TWO, pids=[20]), mig={"MIG-one": ONE})
    source = Nvml(pids, environment)
    assert list(source.identities) == list(source.read()) == chosen
    assert all(note in identity.note for identity in source.identities.values())
    assert bool(source.missing) is not bool(chosen)


def test_numbers_of_unlike_gpus_mean_the_bus_s_order_only_if_they_are_said_to(install: Install) -> None:
    """By default CUDA counts from the fastest, and NVML along the bus."""
    install(FakeGpu(ONE, name="Tesla T4"), FakeGpu(TWO))
    assert list(Nvml(set(), {"CUDA_VISIBLE_DEVICES": "0"}).identities) == [ONE, TWO]
    by_bus = {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert list(Nvml(set(), by_bus).identities) == [ONE]
    assert list(Nvml(set(), {"CUDA_VISIBLE_DEVICES": TWO}).identities) == [TWO]


def test_without_a_driver_there_are_none(install: Install) -> None:
    install()
    source = Nvml({1}, {})
    assert source.identities == {}
    assert source.read() == {}
    assert "shows no GPU of the server" in source.missing
    source.close()
