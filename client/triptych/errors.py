"""Every error that Triptych raises, in one tree.

::

    TriptychError
    ├── ImageError             an image cannot be read, or is larger than the limits allow
    ├── ContractError          a tensor, a config or an option does not fit the contract
    ├── BuildError             a model cannot be adapted, built or published
    ├── MeasurementError       what was measured is not what was asked for, so it is worth nothing
    ├── ServerStartError       the embedded server did not start
    ├── ServerCrashed          the embedded server died, or a model's process did and cannot be restarted
    └── RequestError           a call to a server failed; `code` is the gRPC status
        ├── ServerUnavailable  nobody answers at the address, or the server is going down
        ├── DeadlineExceeded   no answer within the timeout
        ├── ServerOverloaded   the server refuses more work for now
        ├── ModelNotFound      the server does not serve the model
        ├── InvalidRequest     the server read the request and refused it
        ├── AccessDenied       the server wants other credentials
        ├── RequestCancelled   the call was cancelled
        └── ServerFault        the server failed while it worked on the request

Messages are plain sentences: what came, what was expected, what to do.
"""

from __future__ import annotations

from typing import Literal

import grpc

__all__ = [
    "AccessDenied",
    "BuildError",
    "ContractError",
    "DeadlineExceeded",
    "ImageError",
    "InvalidRequest",
    "MeasurementError",
    "ModelNotFound",
    "RequestCancelled",
    "RequestError",
    "ServerCrashed",
    "ServerFault",
    "ServerOverloaded",
    "ServerStartError",
    "ServerUnavailable",
    "TriptychError",
]


BrokenLimit = Literal["encoded_bytes", "pixels", "decode_time", "request_decode_time", "scans", "tiles", "memory"]
"""The limits that an image may break."""

Unreadable = Literal["empty", "format", "damaged", "pixel_format", "crash", "internal"]
"""Why an image that breaks no limit may be unreadable.

It has no bytes, is of no known format, is damaged or ends early, has pixels of a kind that is not read, has ended its
decoder, or our own code failed.
"""

ImageFault = BrokenLimit | Unreadable


class TriptychError(Exception):
    """The root of the tree. To catch it is to catch every error that Triptych raises on purpose."""


class ImageError(TriptychError):
    """An image cannot be read, or is larger than the limits allow.

    Attributes:
        fault: what is wrong with the image, for whoever counts; None where nobody has looked into it.
    """

    def __init__(self, message: str, fault: ImageFault | None = None) -> None:
        super().__init__(message)
        self.fault = fault


class ContractError(TriptychError):
    """A tensor, a config or an option does not fit the contract."""


class BuildError(TriptychError):
    """A model cannot be adapted, built or published."""


class MeasurementError(TriptychError):
    """What was measured is not what was asked for, so its figures are worth nothing."""


class ServerStartError(TriptychError):
    """The embedded server did not start. The message says why and what to do."""


class ServerCrashed(TriptychError):
    """The embedded server died, or a model's process did and cannot be restarted. The message ends with the log."""


class RequestError(TriptychError):
    """A call to a server failed.

    Attributes:
        code: the gRPC status that the call ended with.
        details: the words of the server or of gRPC.
    """

    def __init__(self, message: str, code: grpc.StatusCode, details: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.details = details


class ServerUnavailable(RequestError):
    """Nobody answers at the address, or the server is going down."""


class DeadlineExceeded(RequestError):
    """No answer came within the timeout."""


class ServerOverloaded(RequestError):
    """The server refuses more work for now (a full queue, an exhausted resource)."""


class ModelNotFound(RequestError):
    """The server does not serve the model."""


class InvalidRequest(RequestError):
    """The server read the request and refused it."""


class AccessDenied(RequestError):
    """The server wants other credentials."""


class RequestCancelled(RequestError):
    """The call was cancelled before it ended."""


class ServerFault(RequestError):
    """The server failed while it worked on the request.

    Attributes:
        process_died: whether a model's process ended while it had the request. The request may be what ended it.
    """

    def __init__(self, message: str, code: grpc.StatusCode, details: str = "", *, process_died: bool = False) -> None:
        super().__init__(message, code, details)
        self.process_died = process_died
