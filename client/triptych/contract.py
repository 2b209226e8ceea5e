"""The contract between the models of the ensemble, and between the ensemble and its clients.

Three models stand behind one public API, `detection`::

    IMAGE ──> preprocess ──pixels──> detector ──candidates──> postprocess ──> BOXES SCORES LABELS COUNT TRUNCATED NAMES
                  ├────────────────geometry─────────────────────┘
                  └──ERROR──────────────────────────────────────────────────> ERROR

Every model batches in its first dimension, which the shapes here leave out. `SCORE_THRESHOLD` and `IOU_THRESHOLD`
travel as request parameters, because not every server that we support lets an ensemble have optional inputs. Triton
passes the parameters on to each step of the ensemble.

What varies from detector to detector (input size, letterbox, class names, default thresholds, rows of an answer) is a
`DetectorSpec`. It stands in one place, the `parameters` of the configuration that the detector is served with.
Preprocess and postprocess get it when they start, and clients ask the server. `NAMES` in each answer says which class
names its labels mean: while a server switches over to another version, answers of both are under way.

Two numbers limit what an answer can hold: how many candidates leave the detector (K, in the dims of `candidates`), and
how many rows the answer has (R, in the shapes of `BOXES`, `SCORES` and `LABELS`). `TRUNCATED` says when one of them cut
an image off.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import Any, Literal, get_args

from triptych.errors import ContractError

DEFAULT_ROWS = 300
"""How many rows `BOXES`, `SCORES` and `LABELS` have for one image, where the detector was built without `--rows`."""

MAX_BATCH = 16
"""How many images one request may have, and the largest batch that a model of the ensemble forms."""

MAX_ENCODED_BYTES = 20_000_000
"""The default limit on one encoded image, in bytes."""

MAX_PIXELS = 50_000_000
"""The default limit on one decoded image, in pixels. Its header is checked before anything is decoded."""

GEOMETRY_FIELDS = ("scale_x", "scale_y", "pad_left", "pad_top", "width", "height")
"""The columns of `geometry`: x_letterbox = x_original * scale_x + pad_left, and so for y; then the original size.

A row of zeros stands for an image that could not be read.
"""

CANDIDATE_FIELDS = ("x1", "y1", "x2", "y2", "score", "class")
"""The columns of `candidates`. The corners are in letterbox pixels.

A detector in the Python backend adds one more: the `names_id` of its class names.
"""


class Truncated(IntFlag):
    """What cut an answer off, the value of `TRUNCATED`; 0 where the answer is complete.

    Attributes:
        CANDIDATES: all K candidates score at or above the threshold, so there may have been more of them.
        ROWS: suppression kept more objects than the answer has rows.
    """

    CANDIDATES = 1
    ROWS = 2

    @property
    def names(self) -> list[str]:
        """What cut it off, in words: "candidates", "rows", both or nothing."""
        return [str(flag.name).lower() for flag in Truncated if flag in self]


@dataclass(frozen=True)
class Tensor:
    """One tensor of the contract: its name, its Triton data type, and its shape without the batch (-1: any size)."""

    name: str
    dtype: Literal["BYTES", "UINT8", "INT32", "FP32"]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """The tensors that one model of the repository takes and gives."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


IMAGE = Tensor("IMAGE", "BYTES", (1,))
PIXELS = Tensor("pixels", "UINT8", (-1, -1, 3))
GEOMETRY = Tensor("geometry", "FP32", (len(GEOMETRY_FIELDS),))
CANDIDATES = Tensor("candidates", "FP32", (-1, -1))
BOXES = Tensor("BOXES", "FP32", (-1, 4))
SCORES = Tensor("SCORES", "FP32", (-1,))
LABELS = Tensor("LABELS", "INT32", (-1,))
COUNT = Tensor("COUNT", "INT32", (1,))
TRUNCATED = Tensor("TRUNCATED", "INT32", (1,))
NAMES = Tensor("NAMES", "INT32", (1,))
ERROR = Tensor("ERROR", "BYTES", (1,))

SCORE_THRESHOLD = "score_threshold"
"""A request parameter, a float in 0..1: candidates with a lower score are dropped."""

IOU_THRESHOLD = "iou_threshold"
"""A request parameter, a float in 0..1: of two boxes of a class that overlap more, the lower score is dropped.

1 switches the suppression off, for detectors that suppress overlapping boxes themselves.
"""

PREPROCESS = Model("preprocess", (IMAGE,), (PIXELS, GEOMETRY, ERROR))
DETECTOR = Model("detector", (PIXELS,), (CANDIDATES,))
POSTPROCESS = Model("postprocess", (CANDIDATES, GEOMETRY), (BOXES, SCORES, LABELS, COUNT, TRUNCATED, NAMES))
DETECTION = Model("detection", (IMAGE,), (BOXES, SCORES, LABELS, COUNT, TRUNCATED, NAMES, ERROR))

STAGES = (PREPROCESS, DETECTOR, POSTPROCESS)
"""The composing models, in the order of the pipeline."""

MODELS = (DETECTION, *STAGES)

Placement = Literal["center", "top_left", "stretch"]
"""Where the resized image goes in `pixels`; `stretch` fills them and does not keep the aspect ratio."""


DecodedBy = Literal["cpu", "gpu"]
"""Where preprocess decodes JPEGs; the parameter `decode` of its configuration."""

Decoding = Literal["full", "scaled"]
"""Whether a JPEG that is at least twice as large as its place in the letterbox is decoded to fewer pixels."""


@dataclass(frozen=True)
class DetectorSpec:
    """What preprocess, postprocess and clients need to know about one published detector.

    Attributes:
        width: width of `pixels`.
        height: height of `pixels`.
        class_names: names by class id.
        placement: where the resized image goes in the letterbox.
        pad_value: grey level of the letterbox's border, 0..255.
        score_threshold: the default of the request parameter.
        iou_threshold: the default of the request parameter.
        rows: how many rows `BOXES`, `SCORES` and `LABELS` have for one image.
        decode: `scaled` decodes large JPEGs to fewer pixels, which is faster and changes what the detector sees.
    """

    width: int
    height: int
    class_names: tuple[str, ...]
    placement: Placement = "center"
    pad_value: int = 114
    score_threshold: float = 0.25
    iou_threshold: float = 0.45
    rows: int = DEFAULT_ROWS
    decode: Decoding = "full"

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ContractError(f"a detector's input must be at least 1x1, but got {self.width}x{self.height}")
        if not self.class_names:
            raise ContractError("a detector needs at least one class name, but got none")
        if self.placement not in get_args(Placement):
            raise ContractError(
                f"placement must be one of {', '.join(get_args(Placement))}, but got {self.placement!r}"
            )
        if self.decode not in get_args(Decoding):
            raise ContractError(f"decode must be one of {', '.join(get_args(Decoding))}, but got {self.decode!r}")
        if not 0 <= self.pad_value <= 255:
            raise ContractError(f"pad_value must be in 0..255, but got {self.pad_value}")
        if self.rows < 1:
            raise ContractError(f"an answer needs at least one row, but got rows {self.rows}")
        check_threshold(SCORE_THRESHOLD, self.score_threshold)
        check_threshold(IOU_THRESHOLD, self.iou_threshold)

    def to_parameters(self) -> dict[str, str]:
        """Return the spec as string parameters of a `config.pbtxt`, without the input size, which is in its dims."""
        return {
            "class_names": json.dumps(list(self.class_names)),
            "placement": self.placement,
            "pad_value": str(self.pad_value),
            SCORE_THRESHOLD: str(self.score_threshold),
            IOU_THRESHOLD: str(self.iou_threshold),
            "rows": str(self.rows),
            "decode": self.decode,
        }

    @classmethod
    def from_parameters(cls, width: int, height: int, parameters: Mapping[str, str]) -> DetectorSpec:
        """Read back what `to_parameters` wrote.

        Raises:
            ContractError: a parameter is missing or wrong.
        """
        try:
            names: Any = json.loads(parameters["class_names"])
            return cls(
                width=width,
                height=height,
                class_names=tuple(str(name) for name in names),
                placement=parameters["placement"],  # type: ignore[arg-type]  # checked by __post_init__
                pad_value=int(parameters["pad_value"]),
                score_threshold=float(parameters[SCORE_THRESHOLD]),
                iou_threshold=float(parameters[IOU_THRESHOLD]),
                # Older versions of a detector do not have these.
                rows=int(parameters.get("rows", DEFAULT_ROWS)),
                decode=parameters.get("decode", "full"),  # type: ignore[arg-type]  # checked by __post_init__
            )
        except KeyError as error:
            raise ContractError(
                f"the detector's config.pbtxt has no parameter {error}; publish the detector again "
                "with `triptych build MODEL.onnx`"
            ) from error
        except (ValueError, TypeError) as error:
            raise ContractError(f"the detector's config.pbtxt has a parameter that cannot be read: {error}") from error


def check_threshold(name: str, value: float) -> float:
    """Return `value` as a float if it is a number in 0..1.

    Raises:
        ContractError: it is something else; the message names the threshold and the value.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ContractError(f"{name} must be a number in 0..1, but got {value!r}")
    return float(value)


def names_id(class_names: Sequence[str]) -> int:
    """Return the number that stands for class names in `NAMES`: 1 to 2**24 - 1, which a float32 holds.

    It is the first three bytes of the SHA-256 of the names as a JSON array, as the detector's `config.pbtxt` has them.

    >>> names_id(["person", "bicycle"])
    21517
    """
    digest = hashlib.sha256(json.dumps(list(class_names)).encode()).digest()
    return int.from_bytes(digest[:3], "big") or 1
