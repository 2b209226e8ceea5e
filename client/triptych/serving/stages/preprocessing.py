"""What preprocess does with the images of the requests that Triton hands it together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial

from triptych.model_config import detector_of_stage, detector_spec
from triptych.serving.stages.observers import PreprocessObserver
from triptych.vision import gpu
from triptych.vision.decoder_process import DecoderProcess
from triptych.vision.gpu.decoder import GpuDecoder, Request
from triptych.vision.letterbox import Preprocessed, preprocess


class Preprocessing:
    """Decodes and letterboxes on the CPU or on the GPU, as the stage's configuration says."""

    def __init__(self, args: Mapping[str, str], observer: PreprocessObserver) -> None:
        """Prepare.

        Args:
            args: what Triton gives the `initialize` of the stage's model.py.
            observer: told of the images.

        Raises:
            ContractError: the detector's configuration is missing, or cannot be parsed.
            ImportError: a package for decoding on a GPU is missing.
            RuntimeError: the GPU does not decode JPEGs, or CUDA fails.
        """
        values = {key: value["string_value"] for key, value in json.loads(args["model_config"])["parameters"].items()}
        self._limits: dict[str, int] = {
            "max_bytes": int(values["max_encoded_bytes"]),
            "max_pixels": int(values["max_pixels"]),
        }
        self._spec = spec = detector_spec(detector_of_stage(args))
        self._observer = observer
        # An image that is not known to be harmless is decoded in a process that may die.
        max_decode_s = float(values["max_decode_s"])
        self._decoder = DecoderProcess(spec, **self._limits, max_decode_s=max_decode_s)
        self._on_gpu: GpuDecoder | None = None
        if values["decode"] == "gpu":
            card = gpu.open_card(int(args["model_instance_device_id"]), spec)
            self._on_gpu = GpuDecoder(card, spec, **self._limits, on_decoded=observer.decoded_on_gpu)

    def run(self, images: Sequence[tuple[str, Sequence[bytes]]]) -> list[Preprocessed]:
        """Preprocess the images of several requests, each with the request's id; see `GpuDecoder.preprocess`."""
        requests = []
        for request_id, encoded in images:
            self._observer.images(encoded)
            on_fault = partial(self._observer.fault, request_id)
            requests.append(Request(encoded, self._decoder.for_request(), on_fault))
        if self._on_gpu:
            return self._on_gpu.preprocess(requests)
        return [
            preprocess(encoded, self._spec, **self._limits, apart=apart, on_fault=on_fault)
            for encoded, apart, on_fault in requests
        ]

    def close(self) -> None:
        """End the process that decodes."""
        self._decoder.close()
