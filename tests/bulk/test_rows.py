"""The rows of the results, and how they come back from a file."""

from __future__ import annotations

import hashlib
import io

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pyarrow", reason="needs the packages of the extra `bulk`")

import pyarrow.parquet as pq

from triptych.bulk.rows import SCHEMA, Source, row, to_parquet
from triptych.contract import Truncated
from triptych.detections import Detections


def encoded(extension: str, orientation: int = 1) -> bytes:
    """An image of 30x20 pixels as it is stored."""
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (30, 20)).save(file, extension, exif=exif)
    return file.getvalue()


FOUND = Detections(
    np.array([[1, 2, 3, 4.5]], np.float32),
    np.array([0.75], np.float32),
    np.array([1], np.int32),
    ("a", "b"),
    truncated=Truncated.ROWS,
)


def test_a_row_comes_back_from_the_file() -> None:
    data = encoded("JPEG")
    [back] = pq.read_table(io.BytesIO(to_parquet([row(Source.of("x/a.jpg", data), FOUND, "3")]))).to_pylist()
    assert back == {
        "path": "x/a.jpg",
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "width": 30,
        "height": 20,
        "error": None,
        "objects": [{"name": "b", "label": 1, "score": 0.75, "box_xyxy": [1.0, 2.0, 3.0, 4.5]}],
        "truncated": ["rows"],
        "model_version": "3",
    }


def test_what_is_not_known_is_null() -> None:
    unread = Source("gone.jpg", error="there is no file gone.jpg")
    refused = Source.of("bad.jpg", b"nonsense")
    rows = [row(source, Detections.failed("why"), "3") for source in (unread, refused)]
    [first, second] = pq.read_table(io.BytesIO(to_parquet(rows))).to_pylist()
    assert {name for name, value in first.items() if value is not None} == {"path", "error"}
    assert {name for name, value in second.items() if value is not None} == {"path", "size_bytes", "sha256", "error"}


def test_no_objects_are_not_an_error() -> None:
    empty = FOUND[:0]
    file = io.BytesIO(to_parquet([row(Source.of("a.jpg", encoded("JPEG")), empty, None)]))
    [back] = pq.read_table(file).to_pylist()
    assert (back["objects"], back["error"], back["model_version"]) == ([], None, None)
    assert pq.read_schema(file).equals(SCHEMA)


@pytest.mark.parametrize("extension", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_is_that_of_the_upright_image(extension: str, orientation: int) -> None:
    size = Source.of("a", encoded(extension, orientation)).size
    assert size == ((20, 30) if orientation >= 5 else (30, 20))


def test_an_image_above_the_limit_has_a_size() -> None:
    large = cv2.imencode(".png", np.zeros((9000, 9000), np.uint8))[1].tobytes()
    assert Source.of("a.png", large).size == (9000, 9000)


def test_the_name_of_a_file_that_is_not_utf8_is_escaped() -> None:
    assert row(Source("caf\udce9.jpg"), FOUND, None)["path"] == r"caf\udce9.jpg"
