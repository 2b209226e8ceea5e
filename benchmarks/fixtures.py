"""What several benchmarks measure with: images, and model repositories with a published detector."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2

from triptych.serving.repository import activate
from triptych_build.adapt.adapter import adapt_file
from triptych_build.publish.publish import publish
from triptych_build.publish.target import InstanceGroup
from triptych_demo.detector import boards

ROOT = Path(__file__).parent.parent
"""The checkout."""

DEMO = ROOT / "demo" / "pcb.onnx"


def encoded_boards(count: int) -> list[bytes]:
    """Return 640x640 JPEGs of about 70 KB."""
    images = []
    for index in range(count):
        image = boards.generate(seed=11, index=index).image
        for quality in range(98, 40, -2):
            encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
            if len(encoded) <= 75_000:
                break
        images.append(encoded)
    return images


def our_repository(source: Path, directory: Path, group: InstanceGroup) -> Path:
    """Copy the model repository into a directory and publish the detector there; the adapted ONNX is next to it."""
    repository = directory / "model_repository"
    shutil.copytree(ROOT / "model_repository", repository, ignore=shutil.ignore_patterns("detector"))
    adapt_file(source, directory / "adapted.onnx")
    activate(repository, int(publish(directory / "adapted.onnx", "openvino", repository, group).name))
    return repository


def tutorial_repository(source: Path, directory: Path, group: InstanceGroup) -> Path:
    """Copy the baseline's repository into a directory, with the source ONNX and as many instances as ours."""
    repository = directory / "tutorial_repository"
    shutil.copytree(ROOT / "benchmarks" / "tutorial_repository", repository)
    shutil.copyfile(source, repository / "detector" / "1" / "model.onnx")
    for path, text, replacement in (
        (repository / "detector" / "config.pbtxt", "count: 2", f"count: {group.count}"),
        (
            repository / "detector" / "1" / "model.py",
            '"INFERENCE_NUM_THREADS": 1',
            f'"INFERENCE_NUM_THREADS": {group.threads}',
        ),
    ):
        path.write_text(path.read_text().replace(text, replacement))
    return repository
