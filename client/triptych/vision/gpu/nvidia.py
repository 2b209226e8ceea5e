"""An NVIDIA GPU: nvImageCodec decodes JPEGs in batches, and one kernel of our own letterboxes them.

Each decoder is of one kind, and a file goes to the first that takes it. nvImageCodec's own choice depends on the size
of the batch, and its decoders differ in bits.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from cuda.bindings import runtime as cuda
from cuda.core import Device, LaunchConfig, Program, ProgramOptions, Stream, launch
from cuda.core.utils import StridedMemoryView
from nvidia import nvimgcodec
from PIL import Image

from triptych.contract import DetectorSpec
from triptych.cuda import checked
from triptych.vision.gpu.decoder import Sheet

THREADS = 2
"""CPU threads of a process that undo the entropy coding of what the hardware does not decode."""

KINDS = (nvimgcodec.BackendKind.HW_GPU_ONLY, nvimgcodec.BackendKind.HYBRID_CPU_GPU)
"""The JPEG engine, which only data centres' GPUs have and which takes no progressive files; then the CUDA decoder."""

_PLACED = np.dtype(
    [("rgb", np.uint64), ("canvas", np.uint64)]
    + [(name, np.int32) for name in ("width", "height", "row_bytes", "left", "top", "right", "bottom", "unused")]
)
"""`Placed` in letterbox.cu."""

_BLOCK = (32, 8)


class _Picture(NamedTuple):
    """What nvImageCodec has decoded.

    It frees the memory on the stream, which must live longer: what is last in a tuple goes first.
    """

    stream: Stream
    image: Any

    @property
    def width(self) -> int:
        return int(self.image.width)

    @property
    def height(self) -> int:
        return int(self.image.height)


class NvidiaCard:
    """A GPU that decodes for one detector; see `decoder.Card`. One thread may use it."""

    def __init__(self, device: int, spec: DetectorSpec) -> None:
        """Open a GPU, by its number, and compile the kernel.

        Raises:
            RuntimeError: it does not decode JPEGs. Other errors are CUDA's.
        """
        self._spec = spec
        self._device = Device(device)
        self._device.set_current()
        self._stream = self._device.create_stream()
        source = files(__package__).joinpath("letterbox.cu").read_text()
        options = ProgramOptions(arch=f"sm_{self._device.arch}")
        self._kernel = Program(source, "c++", options).compile("cubin").get_kernel("letterbox")
        self._parameters = nvimgcodec.DecodeParams(
            apply_exif_orientation=False, color_spec=nvimgcodec.ColorSpec.SRGB, allow_any_depth=False
        )
        self._decoders = []
        for kind in KINDS:
            backends = [nvimgcodec.Backend(kind)]
            with suppress(RuntimeError):  # this GPU has no such decoder
                made = nvimgcodec.Decoder(device_id=device, max_num_cpu_threads=THREADS, backends=backends)
                self._decoders.append(made)
        if None in self.decode([_sample()]):
            raise RuntimeError("nvImageCodec decodes no JPEG on this GPU; is nvidia-nvjpeg-cu12 installed?")

    def decode(self, encoded: Sequence[bytes]) -> list[_Picture | None]:
        """Decode JPEGs together; None for what no decoder takes."""
        self._device.set_current()  # a thread begins with GPU 0
        pictures: list[_Picture | None] = [None] * len(encoded)
        streams: dict[int, Any] = {}
        for at, image in enumerate(encoded):
            with suppress(RuntimeError, ValueError):  # its own parser does not understand the file
                streams[at] = nvimgcodec.CodeStream(image)
        for decoder in self._decoders:
            left = {at: stream for at, stream in streams.items() if pictures[at] is None}
            if not left:
                break
            decoded = decoder.decode(list(left.values()), params=self._parameters, cuda_stream=int(self._stream.handle))
            for at, picture in zip(left, decoded, strict=True):
                if picture is not None:
                    pictures[at] = _Picture(self._stream, picture)
        return pictures

    def fill(self, sheets: Sequence[Sheet]) -> list[Any]:
        """Letterbox the pictures of all sheets by one launch, copy the others' pixels, and wait for the end."""
        self._device.set_current()
        image = (self._spec.height, self._spec.width, 3)
        image_bytes = self._spec.height * self._spec.width * 3
        made, table = [], []
        for sheet in sheets:
            count = len(sheet.placed) + len(sheet.given)
            memory = self._device.allocate(count * image_bytes, stream=self._stream)
            for row, pixels in sheet.given.items():
                self._upload(np.ascontiguousarray(pixels), int(memory.handle) + row * image_bytes)
            for row, (picture, geometry) in sheet.placed.items():
                left, top = int(geometry.pad_left), int(geometry.pad_top)
                right = left + round(geometry.scale_x * geometry.width)
                bottom = top + round(geometry.scale_y * geometry.height)
                source = picture.image.__cuda_array_interface__["data"][0]
                canvas = int(memory.handle) + row * image_bytes
                size = (picture.width, picture.height, picture.image.strides[0])
                table.append((source, canvas, *size, left, top, right, bottom, 0))
            made.append(StridedMemoryView.from_buffer(memory, (count, *image), dtype=np.dtype(np.uint8)))
        if table:
            self._letterbox(np.array(table, _PLACED))
        self._stream.sync()
        return made

    def _upload(self, array: Any, address: int) -> None:
        to_device = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        stream = int(self._stream.handle)
        checked(cuda.cudaMemcpyAsync(address, array.ctypes.data, array.nbytes, to_device, stream))

    def _letterbox(self, table: Any) -> None:
        width, height = self._spec.width, self._spec.height
        on_device = self._device.allocate(table.nbytes, stream=self._stream)
        self._upload(table, int(on_device.handle))
        grid = (-(-width // _BLOCK[0]), -(-height // _BLOCK[1]), len(table))
        sizes = (np.int32(width), np.int32(height), np.int32(self._spec.pad_value))
        launch(self._stream, LaunchConfig(grid=grid, block=_BLOCK), self._kernel, on_device, *sizes)


def _sample() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (90, 120, 60)).save(buffer, "JPEG")
    return buffer.getvalue()
