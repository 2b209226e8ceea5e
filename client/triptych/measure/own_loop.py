"""The loop that somebody would write without a server: decode, letterbox, runtime, suppression, in one process.

It has the file that a server serves, and calls the functions that the server's stages call.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tritonclient.grpc import model_config_pb2

from triptych.contract import DETECTOR, DetectorSpec
from triptych.errors import ContractError
from triptych.machine import nvidia_gpus
from triptych.model_config import detector_spec, version_of
from triptych.runtimes import open_runtime
from triptych.vision.boxes import Detected, postprocess
from triptych.vision.decode import decode_reduced
from triptych.vision.letterbox import factor, letterbox


@dataclass(frozen=True)
class ServedFile:
    """The detector's file as a server serves it.

    Attributes:
        runtime: the one of `triptych.runtimes` that runs it.
        path: the file.
        threads: CPU threads of each instance of the server; None for a plan, which runs on a GPU.
        spec: what the detector takes and gives.
    """

    runtime: str
    path: Path
    threads: int | None
    spec: DetectorSpec

    @classmethod
    def of(cls, config: model_config_pb2.ModelConfig, model_repository: Path) -> ServedFile:
        """Find the file of a detector that is served with this configuration.

        Raises:
            ContractError: it is not in the model repository.
        """
        parameters = {key: value.string_value for key, value in config.parameters.items()}
        runtime = parameters.get("runtime") or ("onnxruntime" if config.backend == "onnxruntime" else "tensorrt")
        on_gpu = runtime == "tensorrt"
        name = "model.plan" if on_gpu else "model.onnx"
        if on_gpu and config.cc_model_filenames:
            capability = next((gpu.compute_capability for gpu in nvidia_gpus()), "")
            name = config.cc_model_filenames.get(capability, name)
        path = model_repository / DETECTOR.name / version_of(config) / name
        if not path.is_file():
            raise ContractError(
                f"the server serves version {version_of(config)} of the detector, but there is no {path}; name the "
                "model repository that it serves with --model-repository"
            )
        threads = parameters.get("threads") or parameters.get("intra_op_thread_count") or "1"
        return cls(runtime, path, None if on_gpu else int(threads), detector_spec(config))


class Steps(NamedTuple):
    """What the steps of the loop took for one image, in milliseconds."""

    decode: float
    letterbox: float
    inference: float
    suppression: float


class OwnLoop:
    """The loop; what it needs again for each image, it makes once."""

    def __init__(self, served: ServedFile, threads: int) -> None:
        """Load the detector.

        Args:
            served: the file.
            threads: CPU threads of the runtime.

        Raises:
            BuildError: its runtime is not installed, or does not take the file here.
        """
        self._spec = served.spec
        self._runtime = open_runtime(served.runtime, served.path, threads=threads)
        self._pixels = np.empty((1, served.spec.height, served.spec.width, 3), np.uint8)

    def detect(self, encoded: bytes) -> tuple[Detected, Steps]:
        """Detect the objects in one encoded image.

        Raises:
            ImageError: it cannot be read.
        """
        spec = self._spec
        times_s = [time.perf_counter()]
        rgb, width, height = decode_reduced(encoded, partial(factor, target=spec))
        times_s.append(time.perf_counter())
        geometry = letterbox(
            rgb, self._pixels[0], placement=spec.placement, pad_value=spec.pad_value, size=(width, height)
        )
        times_s.append(time.perf_counter())
        candidates = self._runtime.detect(self._pixels)
        times_s.append(time.perf_counter())
        detected = postprocess(
            candidates,
            np.array([geometry], np.float32),
            score_threshold=spec.score_threshold,
            iou_threshold=spec.iou_threshold,
            rows=spec.rows,
        )
        times_s.append(time.perf_counter())
        return detected, Steps(*np.diff(times_s) * 1000)
