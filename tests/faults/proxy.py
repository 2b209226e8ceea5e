"""A way to the server that goes bad: it stops handing bytes on, or hands on one a second."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType


class Proxy:
    """Hands bytes on between clients and a server.

    Attributes:
        address: where clients connect.
        stopped: set, it hands nothing on, and closes nothing.
        slow: set, it hands a byte a second on to the server.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.stopped, self.slow = threading.Event(), threading.Event()
        self._closed = threading.Event()
        self._sockets: list[socket.socket] = [self._listener]

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, to_server: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                while self.stopped.is_set() and not self._closed.is_set():
                    time.sleep(0.05)
                while to_server and self.slow.is_set() and data and not self._closed.is_set():
                    target.sendall(data[:1])
                    data = data[1:]
                    self._closed.wait(1.0)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
