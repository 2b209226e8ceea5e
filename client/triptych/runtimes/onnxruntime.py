"""ONNX Runtime on the CPU, the reference that the others are compared with."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from triptych.contract import CANDIDATES, PIXELS
from triptych.runtimes import check_pixels
from triptych.runtimes._layers import PRECISION_NAMES, REFORMATS, Layer, Times, added


class OnnxRuntime:
    """A session. It runs a model whose batch is fixed at 1 image by image."""

    def __init__(self, model: Path, threads: int) -> None:
        """Load a model.

        Raises:
            RuntimeError: ONNX Runtime cannot read it.
        """
        self._session = _opened(model, self._options(threads))
        batch, *shape = self._session.get_inputs()[0].shape
        height, width, channels = shape
        self.input_shape = (height, width, channels)
        self._one_by_one = batch == 1

    def detect(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the candidates, float32 [N, K, 6], of pixels uint8 [N, H, W, 3]."""
        check_pixels(pixels, self.input_shape)
        batches = np.split(pixels, len(pixels)) if self._one_by_one else [pixels]
        return np.concatenate([self._run(batch) for batch in batches])

    def _run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return cast("NDArray[np.float32]", self._session.run([CANDIDATES.name], {PIXELS.name: pixels})[0])

    def _options(self, threads: int) -> onnxruntime.SessionOptions:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # On a CPU without VNNI its int8 kernels would saturate sums; elsewhere this changes nothing.
        options.add_session_config_entry("session.x64quantprecision", "1")
        return options


def _opened(model: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """Open a model; where int8 kernels cannot be had, Q and DQ round all the same, and between them are floats.

    On a CPU without VNNI, the exact kernels want uint8, and ONNX Runtime fails to rewrite weights that several layers
    share (1.32: "Attempt to replace the existing tensor").

    Raises:
        RuntimeError: ONNX Runtime cannot read it.
    """
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no other root
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        with contextlib.suppress(Exception):
            return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        raise RuntimeError(str(error)) from error


class ProfiledOnnxRuntime(OnnxRuntime):
    """The same, with ONNX Runtime's own profile, which it writes to a file."""

    def __init__(self, model: Path, threads: int) -> None:
        super().__init__(model, threads)
        self._count = self._warm_up = 0

    def start(self) -> None:
        """Begin to measure."""
        self._warm_up = self._count

    def times(self) -> Times:
        """Return what was executed since the start.

        Raises:
            RuntimeError: the profile lacks executions, since ONNX Runtime keeps a million events at most.
        """
        profile = Path(self._session.end_profiling())
        executions = read_profile(json.loads(profile.read_text()))
        self._remove()
        if len(executions) < self._count:
            raise RuntimeError(f"ONNX Runtime kept {len(executions)} of {self._count} executions in its profile")
        return added(executions[self._warm_up :])

    def _run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self._count += 1
        return super()._run(pixels)

    def _options(self, threads: int) -> onnxruntime.SessionOptions:
        scratch = tempfile.mkdtemp(prefix="triptych-profile-")
        self._remove = weakref.finalize(self, shutil.rmtree, scratch, ignore_errors=True)
        options = super()._options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(scratch) / "onnxruntime")
        return options


NODE_TIME = "_kernel_time"
"""What the name of an event ends with that is the time of a node."""


def read_profile(events: Sequence[Mapping[str, Any]]) -> list[Times]:
    """Return the executions in a profile of ONNX Runtime, which it writes in the form of Chrome's traces.

    A node that runs a graph inside it (If, Loop) has the time of the nodes in there, too; it keeps what is left.
    """
    runs = [event for event in events if event["name"] == "model_run"]
    nodes = [event for event in events if event["cat"] == "Node" and event["name"].endswith(NODE_TIME)]
    nodes.sort(key=lambda event: (event["ts"], -event["dur"]))
    executions, at = [], 0
    for run in sorted(runs, key=lambda event: event["ts"]):
        layers_ms: dict[Layer, float] = {}
        around: list[tuple[float, Layer]] = []  # when each node ends that others run inside of, and its layer
        while at < len(nodes) and nodes[at]["ts"] <= run["ts"] + run["dur"]:
            event, ms = nodes[at], nodes[at]["dur"] / 1000
            while around and around[-1][0] <= event["ts"]:
                around.pop()
            if around:
                layers_ms[around[-1][1]] -= ms
            layer = _layer(event)
            layers_ms[layer] = layers_ms.get(layer, 0.0) + ms
            around.append((event["ts"] + event["dur"], layer))
            at += 1
        executions.append(Times(run["dur"] / 1000, layers_ms))
    return executions


def _layer(event: Mapping[str, Any]) -> Layer:
    facts = event["args"]
    name, kind = event["name"].removesuffix(NODE_TIME), facts["op_name"]
    return Layer(
        name=name,
        kind=kind,
        precision=_precision([*facts["input_type_shape"], *facts["output_type_shape"]]),
        kernel=facts["provider"].removesuffix("ExecutionProvider"),
        operators=(name,),
        is_reformat=kind in REFORMATS,
    )


def _precision(tensors: Sequence[Mapping[str, Sequence[int]]]) -> str:
    """Return the precision of the largest tensor that has one (small ones are scales), or else the first one's type."""
    sizes: dict[str, int] = {}
    for kind, shape in (pair for tensor in tensors for pair in tensor.items()):
        if kind in PRECISION_NAMES:
            sizes[PRECISION_NAMES[kind]] = max(prod(shape), sizes.get(PRECISION_NAMES[kind], 0))
    return max(sizes, key=lambda name: sizes[name]) if sizes else next((kind for one in tensors for kind in one), "?")
