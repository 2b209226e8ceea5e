"""What preprocess and postprocess count and log, and what postprocess says of the detector.

Sum over `process`: each process of a model has series of its own (see `exporter`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

from triptych.contract import POSTPROCESS, PREPROCESS, DetectorSpec, Truncated, names_id
from triptych.errors import BrokenLimit, ContractError, ImageFault, Unreadable
from triptych.files import sha256
from triptych.model_config import detector_spec, read_config, version_of
from triptych.serving.log_format import FailureLog
from triptych.serving.repository import read_manifest
from triptych.serving.stages.exporter import Exporter, Family
from triptych.vision.boxes import Detected

_LOG = logging.getLogger(__name__)

OTHER = "(other)"
"""The class of objects beyond `MAX_CLASSES`, and of those whose class names are not known here."""

MAX_CLASSES = 200
"""How many classes have a series of their own."""

DEATHS: dict[ImageFault, str] = {"crash": "crash", "decode_time": "time"}
"""The faults that cost the decoder's process its life, and why."""

IMAGES = Family("triptych_images_total", "Images that reached preprocess.")
BYTES = Family("triptych_encoded_bytes_total", "Bytes of the encoded images that reached preprocess.")
GPU_DECODED = Family("triptych_images_gpu_decoded_total", "Images that preprocess decoded on a GPU.")
UNREADABLE = Family("triptych_images_unreadable_total", "Images that could not be read, by what is wrong.", ("fault",))
REFUSED = Family("triptych_images_refused_total", "Images that were refused, by the limit that they broke.", ("limit",))
DECODER_DEATHS = Family(
    "triptych_decoder_deaths_total", "Ends of a process that decodes, by why: a crash, or its time was up.", ("reason",)
)

ANSWERED = Family("triptych_images_answered_total", "Images that left postprocess.")
DETECTIONS = Family("triptych_detections_total", "Objects that left postprocess, by class.", ("class",))
TRUNCATED = Family("triptych_answers_truncated_total", "Images whose answer was cut off, by what cut it.", ("by",))

STARTED = Family("triptych_process_start_time_seconds", "When a stage's process started.", ("stage",))
DETECTOR_INFO = Family(
    "triptych_detector_info",
    "The detector that is served, by its manifest; always 1.",
    ("version", "precision", "target", "model_sha256"),
)
MATCHES = Family(
    "triptych_engine_matches_manifest",
    "Whether a file of the detector had the hash that its manifest says when it was loaded: 1 or 0.",
    ("version", "file"),
)
GATE = Family(
    "triptych_gate_timestamp_seconds", "When a file of the detector passed the gate; 0: never.", ("version", "file")
)


class PreprocessObserver:
    """Counts what passes preprocess, and logs what fails there."""

    def __init__(self, backend: Any) -> None:
        """Begin; `backend` is Triton's module, see `Exporter`."""
        self._log = FailureLog(PREPROCESS.name)
        started = time.time()  # noqa: TID251  # a date
        self._exporter = Exporter(
            backend, (IMAGES, BYTES), lambda exporter: exporter.set(STARTED, started, PREPROCESS.name)
        )
        for fault in (*get_args(BrokenLimit), *get_args(Unreadable)):
            self._count_fault(fault, 0)

    def images(self, encoded: Sequence[bytes]) -> None:
        """Count the images of a request."""
        self._exporter.add(IMAGES, len(encoded))
        self._exporter.add(BYTES, sum(map(len, encoded)))

    def decoded_on_gpu(self, count: int) -> None:
        """Count images that a GPU has decoded."""
        self._exporter.add(GPU_DECODED, count)

    def fault(self, request_id: str, fault: ImageFault, error: str) -> None:
        """Count and log an image that could not be read or was refused."""
        self._count_fault(fault, 1)
        self._log.write(request_id, fault, error)

    def refused(self, request_id: str, error: str) -> None:
        """Log a request that was refused as a whole; Triton counts it."""
        self._log.write(request_id, "request", error)

    def close(self) -> None:
        """End; see `Exporter.close`."""
        self._exporter.close()

    def _count_fault(self, fault: ImageFault, amount: int) -> None:
        self._exporter.add(REFUSED if fault in get_args(BrokenLimit) else UNREADABLE, amount, fault)
        if fault in DEATHS:
            self._exporter.add(DECODER_DEATHS, amount, DEATHS[fault])


class PostprocessObserver:
    """Counts what leaves postprocess, logs what fails there, and says what there is to say of the detector.

    A server switches over to another version of the detector without starting postprocess again. So the detector's
    configuration is read again when it changes: for the names of the classes, and to check the new version's files.
    Which of the versions is served now, Triton's own metrics of the detector say by their label `version`.
    """

    def __init__(self, backend: Any, spec: DetectorSpec, version: Path) -> None:
        """Begin.

        Args:
            backend: Triton's module, see `Exporter`.
            spec: the detector's.
            version: the directory of the detector's version.
        """
        self._log = FailureLog(POSTPROCESS.name)
        self._started = time.time()  # noqa: TID251  # a date
        self._class_names: dict[int, tuple[str, ...]] = {}
        self._news: list[tuple[DetectorSpec, Path]] = [(spec, version)]
        self._config = version.parent / "config.pbtxt"
        self._changed = _mtime(self._config)
        self._objects: Counter[tuple[int, int]] = Counter()
        self._lock = threading.Lock()
        self._exporter = Exporter(backend, (ANSWERED,), self._tick)
        for flag in Truncated:
            self._exporter.add(TRUNCATED, 0, *flag.names)

    def answers(self, detected: Detected, names: Sequence[int]) -> None:
        """Count the answers of a request; `names` says for each whose class names its labels mean."""
        self._exporter.add(ANSWERED, len(names))
        objects = [
            (meant, label)
            for row, meant in enumerate(names)
            for label in detected.labels[row, : detected.counts[row, 0]].tolist()
        ]
        with self._lock:
            self._objects.update(objects)
        if detected.truncated.any():
            for value in detected.truncated[:, 0].tolist():
                for why in Truncated(value).names:
                    self._exporter.add(TRUNCATED, 1, why)

    def refused(self, request_id: str, error: str) -> None:
        """Log a request that was refused; Triton counts it."""
        self._log.write(request_id, "request", error)

    def close(self) -> None:
        """End; see `Exporter.close`."""
        self._exporter.close()

    def _tick(self, exporter: Exporter) -> None:
        with self._lock:
            objects, self._objects = self._objects, Counter()
        self._look_for_a_switch()
        for spec, version in self._news:
            self._class_names[names_id(spec.class_names)] = spec.class_names[:MAX_CLASSES]
            _set_detector(exporter, version)
        self._news.clear()
        exporter.set(STARTED, self._started, POSTPROCESS.name)
        for (meant, label), number in objects.items():
            names = self._class_names.get(meant, ())
            exporter.add(DETECTIONS, number, names[label] if 0 <= label < len(names) else OTHER)

    def _look_for_a_switch(self) -> None:
        if (changed := _mtime(self._config)) == self._changed:
            return
        self._changed = changed
        try:
            config = read_config(self._config.parent)
            self._news.append((detector_spec(config), self._config.parent / version_of(config)))
        except ContractError:
            _LOG.warning("the detector's new configuration cannot be read, so nothing is exported about it")


def _mtime(path: Path) -> int:
    """Return when a file was last changed, in nanoseconds; 0 if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _set_detector(exporter: Exporter, version: Path) -> None:
    """Say what a version is, whether its files are those that were published, and when they passed the gate."""
    manifest = read_manifest(version)
    described = (str(manifest.get(key, "")) for key in ("precision", "target", "model_sha256"))
    exporter.set(DETECTOR_INFO, 1, version.name, *described)
    first = "model.plan" if (version / "model.plan").exists() else "model.onnx"
    plans = {f"{first}.{capability}": plan for capability, plan in (manifest.get("plans") or {}).items()}
    for file, record in {first: manifest, **plans}.items():
        matches = (version / file).is_file() and sha256(version / file) == record.get("model_sha256")
        exporter.set(MATCHES, float(matches), version.name, file)
        exporter.set(GATE, gate_time(record), version.name, file)


def gate_time(record: dict[str, Any]) -> float:
    """Return when a published file passed the gate, in seconds since 1970; 0 if it never did, or nobody can tell."""
    verification = record.get("verification") or {}
    if not verification.get("passed"):
        return 0.0
    try:
        return datetime.fromisoformat(verification["date"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return 0.0
