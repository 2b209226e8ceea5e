"""A GPU's stand-in: OpenCV decodes, and NumPy does the arithmetic of the kernel, letterbox.cu, in whole numbers."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from triptych.contract import DetectorSpec
from triptych.vision.gpu.decoder import Placed, Sheet

Pixels = NDArray[np.uint8]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Picture:
    """A picture "in the GPU's memory"."""

    rgb: Pixels

    @property
    def width(self) -> int:
        return self.rgb.shape[1]

    @property
    def height(self) -> int:
        return self.rgb.shape[0]


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int), ("number", ctypes.c_int))


class _Tensor(ctypes.Structure):
    """`DLManagedTensor`, the struct of DLPack before its version 1."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("axes", ctypes.c_int),
        ("type_code", ctypes.c_uint8),
        ("type_bits", ctypes.c_uint8),
        ("type_lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


class OnCard:
    """Pixels that can be had by DLPack alone, as those in a GPU's memory, and live until the other side frees them.

    NumPy's own capsules do not do: Triton 2.51 calls one that it has taken "used_dlpack", not "used_dltensor", and the
    process dies of that.

    Attributes:
        lent: what the other side has not freed yet, by address.
    """

    lent: ClassVar[dict[int, tuple[Any, ...]]] = {}

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels

    def __dlpack__(self, stream: Any = None) -> Any:
        shape = (ctypes.c_int64 * self._pixels.ndim)(*self._pixels.shape)
        tensor = _Tensor(self._pixels.ctypes.data, _Device(1, 0), self._pixels.ndim, 1, 8, 1, shape)
        tensor.deleter = ctypes.cast(_free, ctypes.c_void_p)
        address = ctypes.addressof(tensor)
        self.lent[address] = (tensor, shape, self._pixels)
        return _new_capsule(address, b"dltensor", None)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._pixels.__dlpack_device__()


_free = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(OnCard.lent.pop)
_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


@dataclass
class StandInCard:
    """Does what `nvidia.NvidiaCard` does, without a GPU.

    Attributes:
        spec: the detector's size and letterbox.
        refused: images that it cannot decode.
        broken: the call that fails, `decode` or `fill`; empty for none.
        batches: how many images it has decoded together, each time.
    """

    spec: DetectorSpec
    refused: frozenset[bytes] = frozenset()
    broken: str = ""
    batches: list[int] = field(default_factory=list)

    def decode(self, encoded: Sequence[bytes]) -> list[Picture | None]:
        if self.broken == "decode":
            raise RuntimeError("CUDA: an illegal memory access was encountered")
        self.batches.append(len(encoded))
        return [None if image in self.refused else Picture(_decode(image)) for image in encoded]

    def fill(self, sheets: Sequence[Sheet]) -> list[OnCard]:
        if self.broken == "fill":
            raise RuntimeError("CUDA: out of memory")
        return [OnCard(self._fill(sheet)) for sheet in sheets]

    def _fill(self, sheet: Sheet) -> Pixels:
        shape = (len(sheet.placed) + len(sheet.given), self.spec.height, self.spec.width, 3)
        pixels = np.full(shape, self.spec.pad_value, np.uint8)
        for row, given in sheet.given.items():
            pixels[row] = given
        for row, placed in sheet.placed.items():
            place(placed, pixels[row])
        return pixels


def open_stand_in(_device: int, spec: DetectorSpec) -> StandInCard:
    """Stand in for `open_card`."""
    return StandInCard(spec)


def place(placed: Placed, canvas: Pixels) -> None:
    """Do the kernel's work on one canvas that is all border."""
    picture, geometry = placed
    left, top = int(geometry.pad_left), int(geometry.pad_top)
    width, height = round(geometry.scale_x * geometry.width), round(geometry.scale_y * geometry.height)
    canvas[top : top + height, left : left + width] = resized(picture.rgb, width, height)


def resized(rgb: Pixels, width: int, height: int) -> Pixels:
    """Resize as the kernel does."""
    left, right, right_weight = _neighbours(width, rgb.shape[1])
    top, bottom, bottom_weight = _neighbours(height, rgb.shape[0])
    values, x, y = rgb.astype(np.int64), right_weight[None, :, None], bottom_weight[:, None, None]
    above = values[top][:, left] * (2048 - x) + values[top][:, right] * x
    below = values[bottom][:, left] * (2048 - x) + values[bottom][:, right] * x
    sums = ((2048 - y) * (above >> 4) >> 16) + (y * (below >> 4) >> 16)
    pixels: Pixels = ((sums + 2) >> 2).astype(np.uint8)
    return pixels


def _neighbours(places: int, pixels: int) -> tuple[Integers, Integers, Integers]:
    centres = ((2 * np.arange(places, dtype=np.int64) + 1) * pixels - places) * 2048 + places
    positions = np.clip(centres // (2 * places), 0, (pixels - 1) * 2048)
    first = positions >> 11
    return first, np.minimum(first + 1, pixels - 1), positions & 2047


def _decode(encoded: bytes) -> Pixels:
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    rgb = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    assert rgb is not None
    pixels: Pixels = rgb.astype(np.uint8, copy=False)
    return pixels
