"""The machine's cores and GPUs, with a stand-in for NVIDIA's library."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pynvml
import pytest

from triptych import machine
from triptych.machine import Gpu, available_cores, cpu_model, has_exact_int8, nvidia_gpus

NAMES = ("NVIDIA H200", "NVIDIA L4")
CAPABILITIES = ((9, 0), (8, 9))


class FakeNvml:
    """NVIDIA's library with two GPUs; `failing` is the function that fails."""

    NVMLError = pynvml.NVMLError

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.events: list[str] = []

    def _answer(self, function: str) -> None:
        if function == self.failing:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)

    def nvmlInit(self) -> None:  # noqa: N802
        self._answer("nvmlInit")
        self.events.append("opened")

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.events.append("closed")

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        self._answer("nvmlSystemGetDriverVersion")
        return "580.65.06"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(NAMES)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return f"GPU-{handle}{handle}"

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        self._answer("nvmlDeviceGetName")
        return NAMES[handle]

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:  # noqa: N802
        return CAPABILITIES[handle]


@pytest.fixture
def fake_nvml(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeNvml]:
    def install(failing: str = "") -> FakeNvml:
        fake = FakeNvml(failing)
        monkeypatch.setattr(machine, "pynvml", fake)
        return fake

    return install


def test_gpus_of_the_driver(fake_nvml: Callable[..., FakeNvml]) -> None:
    fake = fake_nvml()
    gpus = (Gpu("NVIDIA H200", "9.0", "580.65.06"), Gpu("NVIDIA L4", "8.9", "580.65.06"))
    assert nvidia_gpus() == gpus
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: nvidia_gpus(), range(50))) == {gpus}
    assert fake.events.count("opened") == fake.events.count("closed") == 51


@pytest.mark.parametrize(
    ("visible", "order", "expected"),
    [
        ("GPU-1", "", NAMES[1:]),
        ("1", "PCI_BUS_ID", NAMES[1:]),
        ("1,0", "PCI_BUS_ID", NAMES[::-1]),
        ("", "", []),
        ("0", "", NAMES),  # which of unlike GPUs is CUDA's first, NVML does not tell
    ],
)
def test_gpus_that_cuda_does_not_show_are_none_of_ours(
    fake_nvml: Callable[..., FakeNvml],
    monkeypatch: pytest.MonkeyPatch,
    visible: str,
    order: str,
    expected: list[str],
) -> None:
    fake_nvml()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    assert [gpu.name for gpu in nvidia_gpus()] == list(expected)


@pytest.mark.parametrize("failing", ["nvmlInit", "nvmlSystemGetDriverVersion", "nvmlDeviceGetName"])
def test_a_driver_that_fails_has_no_gpus(fake_nvml: Callable[..., FakeNvml], failing: str) -> None:
    fake = fake_nvml(failing)
    assert nvidia_gpus() == ()
    assert fake.events.count("opened") == fake.events.count("closed")


def test_the_stand_in_has_the_functions_of_the_library() -> None:
    assert {name for name in vars(FakeNvml) if name.startswith("nvml")} < set(vars(pynvml))


def test_a_machine_has_a_cpu() -> None:
    assert available_cores() >= 1
    assert cpu_model()
    assert all(isinstance(gpu, Gpu) for gpu in nvidia_gpus())


@pytest.mark.parametrize(
    ("features", "exact"),
    [
        ("fpu sse2 avx2", False),
        ("fpu sse2 avx2 avx512f avx512bw", False),
        ("fpu sse2 avx2 avx_vnni", True),
        ("fpu sse2 avx512f avx512_vnni", True),
        ("fpu sse2 avx512f avx512_vnni amx_int8", True),
        ("fp asimd asimddp", True),
        ("", True),
    ],
)
def test_whose_int8_sums_do_not_saturate(monkeypatch: pytest.MonkeyPatch, features: str, exact: bool) -> None:
    monkeypatch.setattr(machine, "cpu_features", lambda: features)
    assert has_exact_int8() == exact
