"""Where images come from and results go: folders, and object stores through pyarrow's file systems.

Folders that images come from are read without pyarrow, which takes no name of a file that is not UTF-8.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from triptych.contract import MAX_ENCODED_BYTES
from triptych.errors import ContractError, ImageError
from triptych.files import aside, atomic_write
from triptych.vision.decode import SUFFIXES
from triptych.vision.inputs import check_size, encode_image

READ_PAUSES_S = (0.2, 1.0, 3.0)
"""The pauses before an object is read once more: a store that is asked too much fails for a moment."""


@dataclass(frozen=True)
class Place:
    """A folder, or a prefix in an object store.

    Attributes:
        text: the absolute path of the folder, or the URI, with which other processes find it again; it may have a
            password in it.
        store: pyarrow's file system.
        root: the path in it.
    """

    text: str
    store: Any
    root: str

    @classmethod
    def of(cls, text: str) -> Place:
        """Find a place by its path, or by its URI: `s3://bucket/prefix`, `gs://…`, `abfs://…`, `hdfs://…`, `file://…`.

        Raises:
            ContractError: pyarrow has no such file system.
        """
        if "://" not in text:
            folder = os.path.abspath(text)  # noqa: PTH100  # Path.resolve would replace links
            return cls(folder, fs.LocalFileSystem(), folder)
        try:
            store, root = fs.FileSystem.from_uri(text)
        except (pa.ArrowInvalid, OSError) as error:
            reason = _first_line(error).replace(text, "")
            raise ContractError(f"{without_secrets(text)} cannot be opened: {reason}") from error
        return cls(text, store, root)

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine's file system."""
        return isinstance(self.store, fs.LocalFileSystem)

    @property
    def name(self) -> str:
        """What stands before an image's path in the results: the URI without user, password and options."""
        return without_secrets(self.text).rstrip("/")

    def images(self) -> list[str]:
        """Return the paths within it of all images, sorted, with those of the folders within.

        The endings of their names decide. What is hidden is left out, and links to folders are not followed.

        Raises:
            ContractError: there is no such place, or a folder in it cannot be read.
        """
        try:
            listed = self._walk() if self.is_local else self._list()
            return sorted(path for path in listed if _is_image(path))
        except OSError as error:
            raise ContractError(f"the images of {self.name} cannot be listed: {_first_line(error)}") from error

    def read(self, path: str) -> bytes:
        """Read an image.

        Raises:
            ImageError: it cannot be read, or is larger than what is accepted.
        """
        if self.is_local:
            return encode_image(Path(self.root, path)).data
        name = f"{self.name}/{path}"
        for pause_s in (*READ_PAUSES_S, None):
            try:
                with self.store.open_input_stream(f"{self.root}/{path}", compression=None) as stream:
                    # Whoever has said its size may have been wrong, and an object may have grown.
                    data = bytes(stream.read(MAX_ENCODED_BYTES + 1))
                break
            except FileNotFoundError as error:
                raise ImageError(f"there is no file {name}") from error
            except OSError as error:
                if pause_s is None or isinstance(error, PermissionError):
                    raise ImageError(f"{name} cannot be read: {_first_line(error)}") from error
                time.sleep(pause_s)
        if not data:
            raise ImageError(f"{name} is empty (0 bytes)")
        check_size(name, len(data))
        return data

    def write(self, name: str, data: bytes) -> None:
        """Write a file that is whole or not there.

        Raises:
            OSError: it cannot be written.
        """
        if self.is_local:
            with atomic_write(Path(self.root, name)) as temporary:
                temporary.write_bytes(data)
            return
        target = PurePosixPath(self.root, name)
        hidden = str(target.parent / aside(Path(target.name)).name)
        self.store.create_dir(str(target.parent), recursive=True)
        with self.store.open_output_stream(hidden, compression=None) as stream:
            stream.write(data)
        self.store.move(hidden, str(target))

    def names(self) -> set[str]:
        """Return the names of the files and folders right in it; none where it does not exist.

        Raises:
            ContractError: it cannot be read.
        """
        try:
            infos = self.store.get_file_info(fs.FileSelector(self.root, allow_not_found=True))
        except OSError as error:
            raise ContractError(f"{self.name} cannot be read: {_first_line(error)}") from error
        return {info.base_name for info in infos}

    def path(self, name: str) -> str:
        """Return the path of a file in `store`."""
        return str(PurePosixPath(self.root, name))

    def _walk(self) -> Iterator[str]:
        def refuse(error: OSError) -> None:
            raise error

        for folder, folders, names in os.walk(self.root, onerror=refuse):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from (os.path.relpath(os.path.join(folder, name), self.root) for name in names)  # noqa: PTH118

    def _list(self) -> Iterator[str]:
        for info in self.store.get_file_info(fs.FileSelector(self.root, recursive=True)):
            if info.type == fs.FileType.File:
                yield info.path[len(self.root.rstrip("/")) + 1 :]


def without_secrets(text: str) -> str:
    """Return a URI without the user, the password and the options; a path as it is."""
    if "://" not in text:
        return text
    parts = urlsplit(text)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _is_image(path: str) -> bool:
    parts = PurePosixPath(path)
    return parts.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in parts.parts)


def _first_line(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).splitlines()[0]
