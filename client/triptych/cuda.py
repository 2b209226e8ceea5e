"""What CUDA returns, and pixels that are in a GPU's memory already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DevicePixels:
    """Pixels in a GPU's memory, uint8 [n, H, W, 3], one image after another. `pixels[2:5]` is a view, as of an array.

    Attributes:
        address: where they begin.
        shape: of all of them.
        owner: what keeps the memory.
    """

    address: int
    shape: tuple[int, ...]
    owner: Any

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> DevicePixels:
        first, stop, _ = rows.indices(len(self))
        height, width, channels = self.shape[1:]
        return DevicePixels(
            self.address + first * height * width * channels,
            (max(0, stop - first), height, width, channels),
            self.owner,
        )


Pixels = NDArray[np.uint8] | DevicePixels
"""Pixels, uint8 [n, H, W, 3], in the host's memory or in that of a GPU."""


def pixels_of(tensor: Any) -> Pixels:
    """Return the pixels of a tensor of Triton's Python backend where they are, without a copy.

    They are complete: Triton hands a tensor on when whoever made it has finished.
    """
    if tensor.is_cpu():
        pixels: NDArray[np.uint8] = tensor.as_numpy()
        return pixels
    from cuda.core.utils import StridedMemoryView

    view = StridedMemoryView.from_dlpack(tensor, stream_ptr=-1)
    return DevicePixels(int(view.ptr), tuple(view.shape), view)


def checked(result: tuple[Any, ...]) -> Any:
    """Return the value of a call of `cuda.bindings.runtime`.

    Raises:
        RuntimeError: the call failed.
    """
    error, *values = result
    if int(error) != 0:
        from cuda.bindings import runtime

        _, text = runtime.cudaGetErrorString(error)
        raise RuntimeError(f"CUDA: {text.decode() if isinstance(text, bytes) else text}")
    return values[0] if values else None
