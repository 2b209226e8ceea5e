"""The rows of the results: one for each image, with its objects or with the reason why there are none."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from triptych.detections import Detections
from triptych.errors import ImageError
from triptych.escape import ESCAPE
from triptych.vision.decode import read_header

_OBJECT = pa.struct(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("box_xyxy", pa.list_(pa.float32()), nullable=False),
    ]
)
SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64()),
        pa.field("sha256", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("error", pa.string()),
        pa.field("objects", pa.list_(_OBJECT)),
        pa.field("truncated", pa.list_(pa.string())),
        pa.field("model_version", pa.string()),
    ]
)
"""What is not known is null: `error` of an image that was read, and all that an image with an error has not."""

_ANY_PIXELS = 1 << 62  # the limit on pixels is the server's


@dataclass(frozen=True)
class Source:
    """An image before it is sent: its bytes, or why it could not be read.

    Attributes:
        path: the image's path, with the place that it is in.
        data: its bytes; empty with an error.
        error: why it could not be read.
        sha256: the hash of its bytes, in hexadecimal digits; None with an error.
        size: width and height in pixels, after EXIF's rotation; None where its header does not say.
    """

    path: str
    data: bytes = b""
    error: str = ""
    sha256: str | None = None
    size: tuple[int, int] | None = None

    @classmethod
    def of(cls, path: str, data: bytes) -> Source:
        """Hash an image, and read its size from its header."""
        try:
            size = read_header(data, max_pixels=_ANY_PIXELS).upright
        except ImageError:
            size = None
        return cls(path, data, sha256=hashlib.sha256(data).hexdigest(), size=size)


def row(source: Source, detections: Detections, model_version: str | None) -> dict[str, Any]:
    """Return the row of an image."""
    width, height = source.size or (None, None)
    failed = bool(detections.error)
    return {
        "path": source.path.encode(errors=ESCAPE).decode(),
        "size_bytes": len(source.data) or None,
        "sha256": source.sha256,
        "width": width,
        "height": height,
        "error": detections.error or None,
        "objects": None if failed else _objects(detections),
        "truncated": None if failed else detections.truncated.names,
        "model_version": None if failed else model_version,
    }


def to_parquet(rows: list[dict[str, Any]]) -> bytes:
    """Return the rows as a Parquet file."""
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), file, compression="zstd")
    return file.getvalue()


def _objects(detections: Detections) -> list[dict[str, Any]]:
    columns = (detections.names, detections.labels.tolist(), detections.scores.tolist(), detections.boxes_xyxy.tolist())
    return [
        {"name": name, "label": label, "score": score, "box_xyxy": box}
        for name, label, score, box in zip(*columns, strict=True)
    ]
