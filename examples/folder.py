"""Detect the objects of every image in a folder, 16 images a request, and write a line of JSON for each image.

python examples/folder.py IMAGES detections.jsonl
"""

import sys
from pathlib import Path

from triptych import DetectionClient

BATCH = 16


def main(folder: str, out: str, address: str = "127.0.0.1:8001") -> None:
    """Exit 1 if an image could not be read; the others are detected all the same."""
    images = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    failed = 0
    with DetectionClient(address, timeout_s=30) as client, Path(out).open("w") as lines:
        for start in range(0, len(images), BATCH):
            for detections in client.detect_batch(images[start : start + BATCH]):
                lines.write(detections.to_json() + "\n")
                if detections.error:
                    print(f"{detections.source}: {detections.error}", file=sys.stderr)
                    failed += 1
    print(f"{len(images) - failed} of {len(images)} images are in {out}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
