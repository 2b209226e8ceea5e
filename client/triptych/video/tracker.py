"""Which object of a frame is which of the frames before: ByteTrack, as supervision has it.

ByteTrack matches boxes by their overlap with where a Kalman filter expects each track. A low score can continue a
track but not begin one, and appearance plays no part. (Zhang et al., ByteTrack, ECCV 2022.)
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import supervision

from triptych.detections import Detection

LOW_SCORE = 0.1
"""A score above this can continue a track; ByteTrack's own constant."""

MEMORY_S = 1.0
"""How long a track that is not seen is remembered."""

_ONE_AT_A_TIME = threading.Lock()
"""Held while Python's warnings are set otherwise, which all threads share."""


class Tracker:
    """Gives the objects of each frame the id of their track: 1, 2, 3 and so on, in the order in which tracks appear."""

    def __init__(self, frames_per_s: float, score_threshold: float) -> None:
        """Begin without any track.

        Args:
            frames_per_s: the rate of the frames; a track is remembered for `MEMORY_S`.
            score_threshold: objects from this score on are matched first, and a track begins 0.1 above it.
        """
        self.memory_frames = max(1, round(frames_per_s * MEMORY_S))
        with _ONE_AT_A_TIME, warnings.catch_warnings():
            # supervision 0.31 drops ByteTrack, and pyproject.toml keeps us below it: nothing that a user could act on.
            warnings.filterwarnings("ignore", "The `ByteTrack` was deprecated", FutureWarning)
            self._byte_track = supervision.ByteTrack(
                track_activation_threshold=score_threshold, lost_track_buffer=self.memory_frames, frame_rate=30
            )
        # Tracks that are replayed keep the ids they had, so supervision's own numbers are not ours.
        self._ids: dict[int, int] = {}
        self._last_id = 0

    def update(self, objects: Sequence[Detection]) -> list[int | None]:
        """Take the next frame's objects; return the id of each, or None where it belongs to no track (yet)."""
        return [None if key is None else self._id(key) for key in self._keys(objects)]

    def replay(self, frames: Iterable[tuple[Sequence[Detection], Sequence[int | None]]], last_id: int) -> None:
        """See frames again whose ids are known, so that their tracks go on under the same ids.

        Args:
            frames: the objects of each frame and their ids.
            last_id: the highest id given so far; new tracks count on from there.
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
        """Return supervision's own id of the track of each object."""
        tracked = self._byte_track.update_with_detections(
            supervision.Detections(
                xyxy=np.array([one.box_xyxy for one in objects], dtype=np.float64).reshape(-1, 4),
                confidence=np.array([one.score for one in objects], dtype=np.float64),
                class_id=np.array([one.label for one in objects], dtype=np.int64),
                data={"row": np.arange(len(objects))},
            )
        )
        keys: list[int | None] = [None] * len(objects)
        if len(tracked):
            for row, key in zip(tracked.data["row"], tracked.tracker_id, strict=True):
                keys[int(row)] = int(key)
        return keys
