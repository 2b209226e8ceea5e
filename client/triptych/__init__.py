"""Triptych: a trained object detector as a measured, verified Triton service.

The logger `triptych` gets a line for each call that is tried again and each model that is loaded again. It is silent
until the program configures logging.

ONNX Runtime sends telemetry to its makers from 1.29 on. A process that imports this package first sends none, unless
its environment sets `ORT_DISABLE_TELEMETRY` to 0.
"""

import logging
import os

from triptych._version import __version__
from triptych.client import AsyncDetectionClient, DetectionClient
from triptych.contract import DetectorSpec
from triptych.detections import Detection, Detections
from triptych.errors import (
    AccessDenied,
    BuildError,
    ContractError,
    DeadlineExceeded,
    ImageError,
    InvalidRequest,
    MeasurementError,
    ModelNotFound,
    RequestCancelled,
    RequestError,
    ServerCrashed,
    ServerFault,
    ServerOverloaded,
    ServerStartError,
    ServerUnavailable,
    TriptychError,
)
from triptych.serving.server import TritonServer
from triptych.wire.credentials import Credentials

__all__ = [
    "AccessDenied",
    "AsyncDetectionClient",
    "BuildError",
    "ContractError",
    "Credentials",
    "DeadlineExceeded",
    "Detection",
    "DetectionClient",
    "Detections",
    "DetectorSpec",
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
    "TritonServer",
    "__version__",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
