"""Which object of a frame is which of the frames before: ByteTrack, as supervision has it.

ByteTrack matches boxes by overlap with where a Kalman filter expects each track; what scores low can continue a track
but not begin one, and appearance plays no part. (Zhang et al., ByteTrack, ECCV 2022.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from triptych.detections import Detection
from triptych.errors import ContractError

LOW_SCORE = 0.1
"""What scores above can continue a track; ByteTrack's own constant."""

MEMORY_S = 1.0
"""How long a track that is not seen is remembered."""


class Tracker:
    """Gives the objects of each frame their track's id: 1, 2, 3 and so on, in the order in which tracks appear."""

    def __init__(self, frames_per_s: float, score_threshold: float) -> None:
        """A tracker that has seen nothing.

        Args:
            frames_per_s: the rate of the frames; a track is remembered for `MEMORY_S`.
            score_threshold: what scores above is matched first, and a track begins 0.1 above it.

        Raises:
            ContractError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ContractError(
                "tracking needs supervision; install it with `pip install 'triptych[track]'`"
            ) from error
        self._supervision = supervision
        self.memory_frames = max(1, round(frames_per_s * MEMORY_S))
        self._byte_track = supervision.ByteTrack(
            track_activation_threshold=score_threshold, lost_track_buffer=self.memory_frames, frame_rate=30
        )
        # supervision counts the tracks of all trackers of a process together; ours count from 1.
        self._ids: dict[int, int] = {}
        self._last_id = 0

    def update(self, objects: Sequence[Detection]) -> list[int | None]:
        """Take the next frame's objects; the id of each, or None where it belongs to no track (yet)."""
        return [None if key is None else self._id(key) for key in self._keys(objects)]

    def replay(self, frames: Iterable[tuple[Sequence[Detection], Sequence[int | None]]], last_id: int) -> None:
        """See frames again whose ids are known, so that their tracks go on under the same ids.

        Args:
            frames: the objects of each frame and their ids.
            last_id: the highest id that was ever given; new tracks count on from there.
        """
        for objects, known in frames:
            for key, known_id in zip(self._keys(objects), known, strict=True):
                if key is not None and known_id is not None:
                    self._ids = {other: given for other, given in self._ids.items() if given != known_id}
                    self._ids[key] = known_id
        self._last_id = last_id

    def _id(self, key: int) -> int:
        if key not in self._ids:
            self._last_id += 1
            self._ids[key] = self._last_id
        return self._ids[key]

    def _keys(self, objects: Sequence[Detection]) -> list[int | None]:
        """Supervision's own id of the track of each object."""
        tracked = self._byte_track.update_with_detections(
            self._supervision.Detections(
                xyxy=np.array([found.box_xyxy for found in objects], dtype=np.float64).reshape(-1, 4),
                confidence=np.array([found.score for found in objects], dtype=np.float64),
                class_id=np.array([found.label for found in objects], dtype=np.int64),
                data={"row": np.arange(len(objects))},
            )
        )
        keys: list[int | None] = [None] * len(objects)
        if len(tracked):
            for row, key in zip(tracked.data["row"], tracked.tracker_id, strict=True):
                keys[int(row)] = int(key)
        return keys
