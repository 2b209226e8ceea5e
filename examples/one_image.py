"""Detect the objects of one image and draw them into a copy of it.

python examples/one_image.py street.jpg marked.png
"""

import sys

from PIL import Image

from triptych import DetectionClient


def main(image: str, marked: str, address: str = "127.0.0.1:8001") -> None:
    """Print a line for each object, and write the picture with its boxes."""
    with DetectionClient(address) as client:
        detections = client.detect(image, score_threshold=0.4)
    for detection in detections:
        left, top, right, bottom = detection.box_xyxy
        print(f"{detection.name} {detection.score:.2f} from ({left:.0f}, {top:.0f}) to ({right:.0f}, {bottom:.0f})")
    Image.fromarray(detections.draw(image)).save(marked)


if __name__ == "__main__":
    main(*sys.argv[1:])
