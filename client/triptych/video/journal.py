"""The file of tracks: one JSON object a line, one line a frame, written so that a sudden end loses no whole line."""

from __future__ import annotations

import fcntl
import json
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from triptych.detections import Detection
from triptych.errors import ContractError
from triptych.escape import ESCAPE


@dataclass(frozen=True)
class Line:
    """One frame of the file.

    Attributes:
        frame: its number, from 0.
        time_s: its place in the video in seconds; of a live source, seconds since 1970 (UTC); None where unknown.
        width: in pixels; None where the frame could not be read.
        height: in pixels; None where the frame could not be read.
        objects: what was detected.
        track_ids: of each object; None where it belongs to no track (yet).
        error: why the frame could not be read, else None.
        video: which video it is of, in the first line of a file; None in the others, and in files of before 0.2.
    """

    frame: int
    time_s: float | None
    width: int | None
    height: int | None
    objects: tuple[Detection, ...] = ()
    track_ids: tuple[int | None, ...] = ()
    error: str | None = None
    video: str | None = None

    def encode(self) -> bytes:
        """Return the line, with its end."""
        objects = [
            {"track_id": track_id, **detection._asdict()}
            for track_id, detection in zip(self.track_ids, self.objects, strict=True)
        ]
        fields = {
            "frame": self.frame,
            "time_s": self.time_s,
            "width": self.width,
            "height": self.height,
            "objects": objects,
            "error": self.error,
            **({"video": self.video} if self.video else {}),
        }
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode(errors=ESCAPE) + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Line:
        """Read back what `encode` gave.

        Raises:
            ValueError: it is not a line of tracks.
        """
        try:
            fields: dict[str, Any] = json.loads(line)
            return cls(
                int(fields["frame"]),
                fields["time_s"],
                fields["width"],
                fields["height"],
                tuple(
                    Detection(item["name"], item["label"], item["score"], tuple(item["box_xyxy"]))
                    for item in fields["objects"]
                ),
                tuple(item["track_id"] for item in fields["objects"]),
                fields["error"],
                fields.get("video"),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"{type(error).__name__} {error}") from error


@dataclass(frozen=True)
class Done:
    """What a file of tracks already holds.

    Attributes:
        next_frame: the number of the first frame that it does not hold.
        last_id: the highest track id; 0 if there is none.
        recent: its last lines.
        whole_bytes: the length of its whole lines; what follows was cut off in the middle.
        video: which video it is of, by its first line; None if that does not say.
    """

    next_frame: int = 0
    last_id: int = 0
    recent: tuple[Line, ...] = ()
    whole_bytes: int = 0
    video: str | None = None


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Keep other commands from writing a file of tracks within the block; the file is made if need be.

    Raises:
        ContractError: another command writes it.
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ContractError(
                f"another `triptych track` writes {path} at this moment; wait for its end, or give another --out"
            ) from error
        except OSError:
            pass  # some network drives have no locks
        yield
    finally:
        os.close(handle)


def read_done(path: Path, recent: int) -> Done:
    """Read how far a file of tracks has come, and its last `recent` lines; nothing where there is no file.

    Raises:
        ContractError: a whole line of it is not a line of tracks.
    """
    if not path.exists():
        return Done()
    last: deque[Line] = deque(maxlen=recent)
    next_frame = last_id = whole_bytes = 0
    video = None
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            if not text.endswith(b"\n"):
                break
            try:
                line = Line.decode(text)
            except ValueError as error:
                raise ContractError(
                    f"line {number} of {path} is not a line of tracks ({error}); give another --out, or --overwrite it"
                ) from error
            video = video or line.video
            next_frame = line.frame + 1
            last_id = max([last_id, *(track_id for track_id in line.track_ids if track_id is not None)])
            whole_bytes += len(text)
            last.append(line)
    return Done(next_frame, last_id, tuple(last), whole_bytes, video)


class Journal:
    """The file, open for more lines."""

    def __init__(self, path: Path, done: Done, video: str | None = None) -> None:
        """Continue after what is done, which may be nothing; what follows it in the file is cut off.

        Args:
            path: the file.
            done: what it holds.
            video: which video it is of, for its first line.

        Raises:
            OSError: it cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        # Not buffered: what is written is with the system, and survives the end of this process.
        self._file = path.open("ab", buffering=0)
        os.ftruncate(self._file.fileno(), done.whole_bytes)
        self._video = None if done.whole_bytes else video

    def write(self, line: Line) -> None:
        """Add a line.

        Raises:
            OSError: it cannot be written; the part that was is cut off when the file is continued.
        """
        rest = (replace(line, video=self._video) if self._video else line).encode()
        self._video = None
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
