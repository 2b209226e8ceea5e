"""What decoding on a GPU needs to be installed."""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import pytest

from triptych.packages import install_command
from triptych.vision import gpu


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = {"nvidia.nvjpeg", "nvidia.cuda_nvrtc"}

    def find(name: str) -> ModuleSpec | None:
        if name.startswith("cuda.core"):
            raise ModuleNotFoundError(name)
        return None if name in lacking else ModuleSpec(name, None)

    monkeypatch.setattr(gpu, "find_spec", find)
    assert gpu.missing_packages() == (f"nvJPEG, NVRTC and cuda.core are missing; run `{install_command(gpu.EXTRA)}`")
    monkeypatch.setattr(gpu, "find_spec", lambda name: ModuleSpec(name, None))
    assert gpu.missing_packages() == ""


def test_the_kernel_comes_with_the_package() -> None:
    found = find_spec("triptych.vision.gpu")
    assert found is not None
    directory = next(iter(found.submodule_search_locations or ()))
    assert 'extern "C" __global__ void letterbox(' in (Path(directory) / "letterbox.cu").read_text()
