"""Pixels in a GPU's memory, without a GPU."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from triptych.cuda import DevicePixels, checked, pixels_of


@pytest.mark.parametrize("rows", [slice(None), slice(2, 4), slice(1), slice(3, None), slice(4, 2), slice(3, 9)])
def test_rows_are_views(rows: slice) -> None:
    array, owner = np.zeros((5, 3, 4, 3), np.uint8), object()
    pixels, expected = DevicePixels(array.ctypes.data, array.shape, owner)[rows], array[rows]
    assert (len(pixels), pixels.shape) == (len(expected), expected.shape)
    assert pixels.owner is owner
    if len(expected):
        assert pixels.address == expected.ctypes.data
    assert (pixels.ndim, pixels.dtype) == (4, expected.dtype)


def test_a_tensor_on_the_host_is_an_array() -> None:
    array = np.zeros((1, 2, 2, 3), np.uint8)
    assert pixels_of(SimpleNamespace(is_cpu=lambda: True, as_numpy=lambda: array)) is array


def test_a_tensor_on_the_gpu_stays_there(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def from_dlpack(tensor: Any, stream_ptr: int) -> Any:
        seen.append((tensor, stream_ptr))
        return SimpleNamespace(ptr=4096, shape=(2, 8, 8, 3))

    utils: Any = ModuleType("cuda.core.utils")
    utils.StridedMemoryView = SimpleNamespace(from_dlpack=from_dlpack)
    for name, module in {"cuda": ModuleType("cuda"), "cuda.core": ModuleType("cuda.core")}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "cuda.core.utils", utils)
    tensor = SimpleNamespace(is_cpu=lambda: False)
    pixels = pixels_of(tensor)
    assert isinstance(pixels, DevicePixels)
    assert (pixels.address, pixels.shape, pixels.owner.ptr) == (4096, (2, 8, 8, 3), 4096)
    assert seen == [(tensor, -1)], "Triton has waited for whoever made it"


def test_an_error_of_cuda_is_raised_in_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    bindings: Any = ModuleType("cuda.bindings")
    bindings.runtime = SimpleNamespace(cudaGetErrorString=lambda error: (0, b"out of memory"))
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    assert checked((0,)) is None
    assert checked((0, 7)) == 7
    with pytest.raises(RuntimeError, match="CUDA: out of memory"):
        checked((2, None))
