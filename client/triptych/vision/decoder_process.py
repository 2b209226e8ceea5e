"""Decode an image in a process that may die or be ended, so that a bad image costs itself alone.

Decoders are large, and some files make them crash or run for minutes. `DecoderProcess` is the service's side,
`main` that of the process. They share memory for the encoded image and the letterboxed pixels, and speak in lines:
a number of bytes goes in, the geometry or an error comes back as JSON. The process limits itself, so the limits hold
even where nobody watches it: its own timer ends it, and the kernel refuses it more memory.
"""

from __future__ import annotations

import contextlib
import io
import json
import mmap
import os
import resource
import select
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.contract import MAX_ENCODED_BYTES, MAX_PIXELS, Decoding, DetectorSpec, Placement
from triptych.errors import ImageError, TriptychError
from triptych.opencv import cv2
from triptych.vision.decode import check_bytes
from triptych.vision.letterbox import Apart, Geometry, decode_into

MAX_DECODE_S = 2.0
"""The default limit on the CPU time that one image may take."""

REQUEST_LIMITS = 3
"""How many times `max_decode_s` the images of one request may take together, so that a stage is never busy for long."""

BYTES_PER_PIXEL = 48
"""What decoding may allocate for each pixel of the limit; the hungriest format, JPEG 2000, was seen to take 30."""

_START_S = 60.0  # a machine that has much else to do starts a process slowly
_WALL_PER_CPU = 10.0  # the process shares its core with others

# The paths of this process, and no folder that somebody happened to stand in.
_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[2]); from triptych.vision.decoder_process import main; main()"
)


@dataclass(frozen=True)
class _Task:
    """What holds for every image of one process."""

    width: int
    height: int
    placement: Placement
    pad_value: int
    decode: Decoding
    max_bytes: int
    max_pixels: int
    max_decode_s: float

    @property
    def memory_bytes(self) -> int:
        """How much memory both sides share: the encoded image, then the pixels."""
        return self.max_bytes + self.height * self.width * 3

    def pixels(self, memory: mmap.mmap) -> NDArray[np.uint8]:
        """Return the shared pixels."""
        return np.ndarray((self.height, self.width, 3), np.uint8, memory, self.max_bytes)


class DecoderProcess:
    """A process that decodes and letterboxes one image at a time. It starts with the first image, and after a crash."""

    def __init__(
        self,
        spec: DetectorSpec,
        *,
        max_bytes: int = MAX_ENCODED_BYTES,
        max_pixels: int = MAX_PIXELS,
        max_decode_s: float = MAX_DECODE_S,
    ) -> None:
        """Prepare a process.

        Args:
            spec: the detector's size and letterbox.
            max_bytes: the limit on an encoded image.
            max_pixels: the limit on a decoded image.
            max_decode_s: the CPU time that one image may take, in seconds; a busy machine does not use it up. All
                images of a request may take `REQUEST_LIMITS` times as long.
        """
        letterbox = (spec.width, spec.height, spec.placement, spec.pad_value, spec.decode)
        self._task = _Task(*letterbox, max_bytes, max_pixels, max_decode_s)
        self._file = os.memfd_create("triptych_decoder")
        os.ftruncate(self._file, self._task.memory_bytes)
        self._memory = mmap.mmap(self._file, self._task.memory_bytes)
        self._pixels = self._task.pixels(self._memory)
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ready = False

    def for_request(self) -> Apart:
        """Return what decodes and letterboxes the images of one request, each into a canvas of the detector's size.

        It raises an ImageError if an image cannot be read, breaks a limit, or ended the process.
        """
        limit_s = remaining_s = REQUEST_LIMITS * self._task.max_decode_s

        def letterbox_apart(encoded: bytes, canvas: NDArray[np.uint8]) -> Geometry:
            nonlocal remaining_s
            check_bytes(encoded, self._task.max_bytes)
            if remaining_s <= 0:
                raise ImageError(
                    f"the other images of the request took {limit_s:g} s to decode; send fewer at a time",
                    "request_decode_time",
                )
            took_s = self._task.max_decode_s  # by one that ends the process
            try:
                answer = self._ask(self._ready_process(), encoded)
                took_s = answer["took_s"]
            finally:
                remaining_s -= took_s
            if "error" in answer:
                raise ImageError(answer["error"], answer["fault"])
            canvas[:] = self._pixels
            return Geometry(*answer["geometry"])

        return letterbox_apart

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._end(self._process)
            self._process = None

    def _ready_process(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = self._start()
        # The first line after a start says that its imports are done, which is no image's fault or time.
        if not self._is_ready:
            if self._read_line(self._process, _START_S) != b"ready\n":
                status = self._end(self._process)
                self._process = None
                raise TriptychError(f"the process that decodes images did not start (exit status {status})")
            self._is_ready = True
        return self._process

    def _start(self) -> subprocess.Popen[bytes]:
        self._is_ready = False
        arguments = json.dumps({**asdict(self._task), "file": self._file})
        return subprocess.Popen(
            [sys.executable, "-I", "-c", _START, arguments, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self._file],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            bufsize=0,
        )

    def _ask(self, process: subprocess.Popen[bytes], encoded: bytes) -> dict[str, Any]:
        """Send the process to work and return its answer. If it dies, start the next one and say why."""
        assert process.stdin  # noqa: S101  # it is a pipe
        self._memory[: len(encoded)] = encoded
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"%d\n" % len(encoded))
        line = self._read_line(process, _WALL_PER_CPU * self._task.max_decode_s)
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        status = self._end(process)
        self._process = self._start()  # its imports take their time while other images are decoded
        if status is None or status == -signal.SIGPROF:
            limit_s = self._task.max_decode_s
            raise ImageError(
                f"the image takes more than {limit_s:g} s to decode; send it smaller, or as a plain JPEG", "decode_time"
            )
        name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        raise ImageError(f"the image is damaged in a way that ends its decoder ({name}); save it again", "crash")

    @staticmethod
    def _read_line(process: subprocess.Popen[bytes], timeout_s: float) -> bytes:
        """Return the next line; nothing if the process ends first or the time runs out."""
        assert process.stdout  # noqa: S101  # it is a pipe
        line, deadline = b"", time.monotonic() + timeout_s
        while not line.endswith(b"\n"):
            if not select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return b""
            piece = process.stdout.read(1 << 16)
            if not piece:
                return b""
            line += piece
        return line

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> int | None:
        """Collect a process, and return its exit status; None if it had to be killed."""
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()
        try:
            return process.wait(1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None


def main() -> None:
    """Decode what is asked for until the other side is gone."""
    arguments = json.loads(sys.argv[1])
    file = arguments.pop("file")
    task = _Task(**arguments)
    # Decoders' libraries print warnings, which must not come between the answers.
    replies = io.FileIO(os.dup(1), "wb")
    os.dup2(2, 1)
    cv2.setNumThreads(1)
    memory = mmap.mmap(file, task.memory_bytes)
    # No space is needed for a picture of what went wrong.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit = 2**28 + BYTES_PER_PIXEL * task.max_pixels
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with contextlib.suppress(BrokenPipeError):
        replies.write(b"ready\n")
        _serve(task, memory, replies)


def _serve(task: _Task, memory: mmap.mmap, replies: io.FileIO) -> None:
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, task.max_decode_s)  # its signal ends the process in whatever it does
        started = time.process_time()
        answer = {**_answer(task, memory, int(line)), "took_s": time.process_time() - started}
        signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write(json.dumps(answer).encode() + b"\n")


def _answer(task: _Task, memory: mmap.mmap, size: int) -> dict[str, Any]:
    try:
        limits = {"max_bytes": task.max_bytes, "max_pixels": task.max_pixels}
        return {"geometry": decode_into(memory[:size], task.pixels(memory), task, **limits)}
    except ImageError as error:
        return {"error": str(error), "fault": error.fault}
    except Exception as error:
        return {"error": f"the image cannot be processed: {error!r}", "fault": "internal"}
