"""Sampling processes: a stand-in for Triton whose model grows, with real processes, ports and files."""

from __future__ import annotations

import socket
import time

import pytest

from support.nvml import FakeGpu, FakeNvml
from triptych.measure import footprint_sampler
from triptych.measure.footprint import Footprint
from triptych.measure.footprint_sampler import FootprintSampler
from triptych.measure.power import nvml
from triptych.serving.processes import SERVER, process_on_port


def sampled(address: str, seconds: float) -> Footprint | None:
    with FootprintSampler(address, period_s=0.02) as sampler:
        time.sleep(seconds)
        return sampler.stop()


def test_each_process_has_its_memory_and_what_it_holds(port: int) -> None:
    seen = sampled(f"127.0.0.1:{port}", 1.0)
    assert seen
    assert [(process.name, process.version) for process in seen.processes] == [(SERVER, ""), ("detector", "3")]
    server, model = seen.processes
    assert server.files.first == server.files.last
    assert server.threads.max == 1
    assert model.threads.max == 2, "its helper counts with it"
    assert model.memory_mb.last > model.memory_mb.first + 5
    assert model.memory_mb.slope
    assert model.memory_mb.slope.low > 100
    assert model.files.slope
    assert model.files.slope.low > 100
    assert seen.seconds == model.to_s == pytest.approx(1.0, abs=0.5)


def test_samples_are_bounded(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint_sampler, "MOST_SAMPLES", 10)
    seen = sampled(f"127.0.0.1:{port}", 0.8)
    assert seen
    assert seen.period_s > 0.02
    assert seen.processes[0].from_s < 0.3


def test_a_server_elsewhere_is_not_guessed(port: int, nobody: str) -> None:
    assert sampled(f"gpu-host:{port}", 0.1) is None, "even if something listens here on that port"
    assert sampled(nobody, 0.1) is None
    assert sampled("unix:/run/triton.sock", 0.1) is None


def test_who_listens_may_be_no_triton() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert sampled(f"127.0.0.1:{listener.getsockname()[1]}", 0.1) is None


def test_gpus_are_sampled_where_there_are_some(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeNvml(FakeGpu("GPU-1", name="one"), FakeGpu("GPU-2", name="two"))
    for module in (nvml, footprint_sampler):
        monkeypatch.setattr(module, "pynvml", fake)
    seen = sampled(f"127.0.0.1:{port}", 0.1)
    assert seen
    assert [(gpu.index, gpu.name, gpu.memory_mb.last) for gpu in seen.gpus] == [
        (0, "one", 20_000.0),
        (1, "two", 20_000.0),
    ]


def test_a_gpu_that_the_server_does_not_use_is_none_of_its_own(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    server = process_on_port(port)
    assert server
    fake = FakeNvml(FakeGpu("GPU-1", pids=[1]), FakeGpu("GPU-2", pids=[server.pid, 1]))
    for module in (nvml, footprint_sampler):
        monkeypatch.setattr(module, "pynvml", fake)
    seen = sampled(f"127.0.0.1:{port}", 0.1)
    assert seen
    assert [gpu.index for gpu in seen.gpus] == [1]


def test_a_gpu_that_was_only_taken_for_the_server_s_is_left_out(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as none of its processes computes, such as when a model is replaced, all of the machine are."""
    server = process_on_port(port)
    assert server
    gpus = FakeGpu("GPU-1"), FakeGpu("GPU-2")
    for module in (nvml, footprint_sampler):
        monkeypatch.setattr(module, "pynvml", FakeNvml(*gpus))
    with FootprintSampler(f"127.0.0.1:{port}", period_s=0.02) as sampler:
        time.sleep(0.1)
        gpus[1].pids = [server.pid]
        time.sleep(0.5)
        seen = sampler.stop()
    assert seen
    assert [gpu.index for gpu in seen.gpus] == [1]
