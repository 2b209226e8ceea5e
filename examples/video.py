"""Count the objects in each second of a video. `triptych track` also follows them from frame to frame.

python examples/video.py street.mp4
"""

import sys
from collections import Counter

import av

from triptych import DetectionClient


def main(video: str, address: str = "127.0.0.1:8001") -> None:
    """Print how often each class was seen in a frame, on average, second by second."""
    frames: Counter[int] = Counter()
    objects: dict[int, Counter[str]] = {}
    with DetectionClient(address) as client, av.open(video) as container:
        for frame in container.decode(video=0):
            second = int(frame.time or 0)
            frames[second] += 1
            detections = client.detect(frame.to_ndarray(format="rgb24"))
            objects.setdefault(second, Counter()).update(detections.names)
    for second, counts in objects.items():
        averages = ", ".join(f"{count / frames[second]:.1f} {name}" for name, count in counts.most_common())
        print(f"{second:4} s: {averages or 'nothing'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
