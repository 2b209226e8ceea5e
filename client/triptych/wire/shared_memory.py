"""Hand images to a server on this machine through shared memory, in place of gRPC.

Each request that is under way has a region of its own: a file in /dev/shm that client and server map. The client
registers it once, which takes the server's key, and uses it again for other requests. It does so only after the
server's word on the request that it carried. After a timeout, a cancelled call or a lost connection the server may
still read the region, so it is unregistered: Triton unmaps it when no request uses it any more, and refuses until then
or waits itself, depending on its version. Only then is the file removed.

Whoever has a region holds a lock on its file, and the kernel takes the lock away when the process dies. So the next
client of the same server finds what a killed one left behind, and removes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import mmap
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from triptych.errors import (
    ContractError,
    DeadlineExceeded,
    InvalidRequest,
    ServerFault,
    ServerOverloaded,
    TriptychError,
)
from triptych.wire.credentials import Credentials
from triptych.wire.effects import Call, Flow, Sleep
from triptych.wire.protocol import encoded_parts, place_images
from triptych.wire.status import Target, explain_rpc_error

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  (no temporary file: where Linux keeps shared memory)

SMALLEST_BYTES = 1_000_000
"""Requests with fewer bytes of images go by gRPC, where nothing was gained by shared memory."""

REGION_BYTES = 1 << 20
"""The size of the smallest region. Each larger one is twice as large as the one before."""

CALL_TIMEOUT_S = 1.0
"""How long the server may take to unregister a region."""

_PREFIX = "triptych-client-"
_CLOSE_PAUSES_S = (0.0, 0.05, 0.2, 0.5)
_WORD = (ServerOverloaded, InvalidRequest)
"""Errors that are the server's word on a request: it is done with it."""
_IN_USE = (ServerFault, InvalidRequest, DeadlineExceeded)
"""Errors after which a region is still registered."""


class Region:
    """A file in shared memory that this process has mapped and locked."""

    def __init__(self, address: str, size: int) -> None:
        """Make the file, with all its memory.

        Raises:
            OSError: there is not enough memory left, or no place for the file.
        """
        self.name = f"{_prefix(address)}{os.getpid()}-{secrets.token_hex(8)}"
        self.size = size
        self.path = SHARED_MEMORY / self.name
        aside = self.path.with_name(f".{self.name}")
        file = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Locked first and named then: a file of that name without a lock belongs to nobody who lives.
            fcntl.flock(file, fcntl.LOCK_EX)
            os.posix_fallocate(file, 0, size)  # else memory that is short shows as SIGBUS in a write
            self._memory = mmap.mmap(file, size)  # has a descriptor of its own, and with it the lock
            aside.rename(self.path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        finally:
            os.close(file)

    def write(self, images: Sequence[bytes]) -> int:
        """Write encoded images as a BYTES tensor; return its size."""
        end = 0
        for part in encoded_parts(images):
            begin, end = end, end + len(part)
            self._memory[begin:end] = part
        return end

    def remove(self) -> None:
        """Remove the file; its memory is there until nobody maps it any more."""
        self.path.unlink(missing_ok=True)

    def let_go(self) -> None:
        """Unmap and unlock the file, and leave it where it is."""
        self._memory.close()


class SharedMemory:
    """The regions of one client. Threads may share it; so may the tasks of one event loop."""

    def __init__(self, address: str, credentials: Credentials) -> None:
        """Begin without any region.

        Args:
            address: the server's, host:port.
            credentials: they have the server's key, or say where it is.

        Raises:
            ContractError: this system has no /dev/shm.
        """
        if not SHARED_MEMORY.is_dir():
            raise ContractError(f"shared_memory needs {SHARED_MEMORY}, which this system does not have; go without it")
        self._address, self._credentials = address, credentials
        self._start()

    def _start(self) -> None:
        self._process, self._lock = os.getpid(), threading.Lock()
        self._closed = self._swept = False
        self._idle: list[Region] = []
        self._busy: list[Region] = []
        self._doubtful: list[Region] = []  # the server may still read them

    @staticmethod
    def takes(images: Sequence[bytes]) -> bool:
        """Return whether encoded images are so large that they are better off here."""
        return sum(map(len, images)) >= SMALLEST_BYTES

    def ask(self, call: Call, images: Sequence[bytes], left_s: Callable[[], float]) -> Flow[Any]:
        """Make a call with encoded images in a region, and return the response.

        Args:
            call: an inference; its request says nothing yet of where the images are.
            images: what the region is to hold.
            left_s: says how long the caller can still wait, in seconds.

        Raises:
            TriptychError: /dev/shm has too little memory left.
            grpc.RpcError: the call failed, or the server does not register the region.
        """
        size = sum(map(len, encoded_parts(images)))
        region = self._take(size) or (yield from self._add(size, left_s))
        is_done = False
        try:
            place_images(call.request, region.name, region.write(images))
            try:
                response = yield call._replace(timeout_s=left_s())
            except grpc.RpcError as error:
                if not _is_forgotten(error):
                    raise
                # The server was started again since.
                yield self._registration(region, left_s())
                response = yield call._replace(timeout_s=left_s())
            is_done = True
        except grpc.RpcError as error:
            is_done = isinstance(self._explain(error), _WORD)
            raise
        finally:
            self._give_back(region, is_done)
        return response

    def close(self) -> Flow[None]:
        """Unregister all regions and remove their files.

        A region that the server still reads may be left. The next client of the server removes it.
        """
        self._forget_parent()
        with self._lock:
            self._closed = True
            mine = [*self._idle, *self._doubtful]
            left = [*mine, *self._busy]
        try:
            for pause_s in _CLOSE_PAUSES_S:
                if left and pause_s:
                    yield Sleep(pause_s)
                for region in list(left):
                    if (yield from self._unregister(region.name)):
                        region.remove()
                        left.remove(region)
        finally:
            for region in mine:
                region.let_go()

    def _take(self, size: int) -> Region | None:
        """Return an idle region that is large enough. If all are too small, one of them makes room for a larger one."""
        self._forget_parent()
        with self._lock:
            if self._closed:
                raise TriptychError(f"this client of {self._address} is closed; make a new one")
            fitting = [region for region in self._idle if region.size >= size]
            if fitting:
                self._idle.remove(fitting[-1])
                self._busy.append(fitting[-1])
                return fitting[-1]
            if self._idle:
                self._doubtful.append(self._idle.pop())
            return None

    def _add(self, size: int, left_s: Callable[[], float]) -> Flow[Region]:
        """Return a new region that the server knows."""
        yield from self._remove_doubtful(left_s)
        region = self._make(max(REGION_BYTES, 1 << (size - 1).bit_length()))
        with self._lock:
            self._busy.append(region)
        try:
            yield self._registration(region, left_s())
            if not self._swept:
                self._swept = True
                yield from self._sweep(left_s)
        except BaseException as error:
            if isinstance(error, grpc.RpcError) and not isinstance(self._explain(error), DeadlineExceeded):
                region.remove()  # the server does not have it
            self._give_back(region, is_done=False)
            raise
        return region

    def _make(self, size: int) -> Region:
        try:
            return Region(self._address, size)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.ENOMEM):
                raise TriptychError(
                    f"no region of shared memory can be made in {SHARED_MEMORY}: {error.strerror}; go without it"
                ) from error
            status = os.statvfs(SHARED_MEMORY)
            raise TriptychError(
                f"{SHARED_MEMORY} has {status.f_bavail * status.f_frsize / 1e6:.0f} MB left, and a request needs "
                f"{size / 1e6:.0f} MB more; enlarge it (a container's with `--shm-size`), or go without shared memory"
            ) from error

    def _give_back(self, region: Region, is_done: bool) -> None:
        with self._lock:
            if region not in self._busy:  # a child of `fork` has given up what its parent has
                return
            self._busy.remove(region)
            if self._closed:
                region.let_go()
            else:
                (self._idle if is_done else self._doubtful).append(region)

    def _remove_doubtful(self, left_s: Callable[[], float]) -> Flow[None]:
        """Remove the regions that the server reads no more."""
        with self._lock:
            regions, self._doubtful = self._doubtful, []
        kept = list(regions)
        try:
            for region in regions:
                if left_s() > 0 and (yield from self._unregister(region.name, left_s())):
                    region.remove()
                    region.let_go()
                    kept.remove(region)
        finally:
            with self._lock:
                self._doubtful += kept

    def _sweep(self, left_s: Callable[[], float]) -> Flow[None]:
        """Remove what clients of the server left behind that are dead."""
        for path, file in _abandoned(self._address):
            try:
                if (yield from self._unregister(path.name, left_s())):
                    path.unlink(missing_ok=True)
            finally:
                os.close(file)

    def _registration(self, region: Region, timeout_s: float) -> Call:
        request = service_pb2.SystemSharedMemoryRegisterRequest(
            name=region.name, key=f"/{region.name}", byte_size=region.size
        )
        return Call("SystemSharedMemoryRegister", request, timeout_s, headers=self._credentials.headers(self._address))

    def _unregister(self, name: str, timeout_s: float = CALL_TIMEOUT_S) -> Flow[bool]:
        """Return whether the server has let a region go, or is gone itself."""
        request = service_pb2.SystemSharedMemoryUnregisterRequest(name=name)
        headers = self._credentials.headers(self._address)
        try:
            yield Call("SystemSharedMemoryUnregister", request, min(timeout_s, CALL_TIMEOUT_S), headers=headers)
        except grpc.RpcError as error:
            return not isinstance(self._explain(error), _IN_USE)
        return True

    def _explain(self, error: grpc.RpcError) -> TriptychError:
        return explain_rpc_error(error, Target(self._address, "", CALL_TIMEOUT_S)).error

    def _forget_parent(self) -> None:
        """Give up the regions of the process that this one was forked from: they stay the parent's."""
        if self._process != os.getpid():
            for region in (*self._idle, *self._busy, *self._doubtful):
                region.let_go()
            self._start()


def _prefix(address: str) -> str:
    """Return how the names of the regions begin that clients of one server have."""
    return f"{_PREFIX}{hashlib.sha256(address.encode()).hexdigest()[:8]}-"


def _is_forgotten(error: grpc.RpcError) -> bool:
    """Return whether a server says that it knows no such region."""
    details = error.details() if hasattr(error, "details") else ""
    return "unable to find shared memory region" in (details or "").lower()


def _abandoned(address: str) -> Iterator[tuple[Path, int]]:
    """Find the regions of dead clients; each comes with its open file, which is locked then."""
    for path in SHARED_MEMORY.glob(f"{_prefix(address)}*"):
        with contextlib.suppress(OSError):  # it may go at any moment, or belong to another user
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(file)
            else:
                yield path, file
