"""Files of what was measured: JSON with a version, whole or not there.

The dataclasses of a document say what its file holds. `msgspec` reads a file by their annotations, so that an error
names the place, and the JSON Schema is made from the annotations and the docstrings.
"""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from triptych.errors import ContractError
from triptych.files import atomic_write
from triptych.measure import histogram
from triptych.measure.histogram import Histogram

Document = TypeVar("Document")


@dataclass(frozen=True)
class Format(Generic[Document]):
    """A kind of file.

    Attributes:
        name: what messages call a file, such as `run`.
        document: the dataclass of what a file holds.
        version: the one that can be read; a field of the document.
        mark: a field that no other kind of file has.
        upgrade: makes the data of this version from what earlier releases wrote under it.
    """

    name: str
    document: type[Document]
    version: int
    mark: str
    upgrade: Callable[[dict[str, Any]], dict[str, Any]] = dict

    def read(self, path: Path) -> Document:
        """Read a file.

        Raises:
            ContractError: there is none, it holds something else, or its version is another.
        """
        return self._document(path, _load(path, self.name))

    def write(self, path: Path, document: Document) -> None:
        """Write a file; it is whole or not there.

        Raises:
            ContractError: it cannot be written.
        """
        text = json.dumps(to_json(document), indent=1)
        try:
            with atomic_write(path) as aside:
                aside.write_text(text + "\n")
        except OSError as error:
            raise ContractError(
                f"the {self.name} cannot be written to {path} ({error.strerror}); choose another --out"
            ) from error

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema (draft 2020-12) of a file."""
        _, parts = msgspec.json.schema_components(
            [self.document, histogram.Saved], schema_hook=_schema_hook, ref_template="#/$defs/{name}"
        )
        for part in parts.values():
            _describe(part)
        whole = parts.pop(self.document.__name__)
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **whole,
            "$defs": dict(sorted(parts.items())),
        }

    def _document(self, path: Path, data: Any) -> Document:
        version = data.get("version") if isinstance(data, dict) else None
        if version != self.version:
            raise ContractError(
                f"{path} must be a {self.name} of version {self.version}, but its version is {version!r}"
            )
        if self.mark not in data:
            raise ContractError(f"{path} must be a {self.name}, but has no `{self.mark}`")
        try:
            return msgspec.convert(self.upgrade(data), self.document, dec_hook=_decode_hook)
        except msgspec.ValidationError as error:
            raise ContractError(f"{path} is not a whole {self.name}: {error}") from error


def read_either(path: Path, one: Format[Any], *others: Format[Any]) -> Any:
    """Read a file of one of several kinds.

    Raises:
        ContractError: as `Format.read`; a file that is none of them is held against `one`.
    """
    data = _load(path, one.name)
    for kind in others:
        if isinstance(data, dict) and kind.mark in data:
            return kind._document(path, data)
    return one._document(path, data)


def to_json(document: Any) -> Any:
    """Return a document, or a part of one, as plain objects for `json.dumps`."""
    return msgspec.to_builtins(document, str_keys=True, enc_hook=_encode_hook)


def _load(path: Path, name: str) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ContractError(f"{path} is not a {name} that can be read: {error}") from error


def _encode_hook(value: Any) -> Any:
    if isinstance(value, Histogram):
        return value.to_json()
    raise NotImplementedError(f"{type(value).__name__} has no place in a file")


def _decode_hook(kind: Any, data: Any) -> Any:
    if typing.get_origin(kind) is Counter:
        return Counter(msgspec.convert(data, dict[int, int], strict=False))
    try:
        return Histogram.from_json(data)
    except ContractError as error:
        raise ValueError(str(error)) from error  # msgspec adds the place to a ValueError


def _schema_hook(kind: Any) -> dict[str, Any]:
    if kind is Counter:
        return {"type": "object", "additionalProperties": {"type": "integer"}}
    return {"$ref": f"#/$defs/{histogram.Saved.__name__}"}


def _describe(schema: dict[str, Any]) -> None:
    """Move what a docstring says of each attribute to the attribute."""
    text, _, attributes = inspect.cleandoc(schema.get("description", "")).partition("\n\nAttributes:\n")
    schema["description"] = " ".join(text.split())
    for names, description in re.findall(r"^    (\w[\w, ]*): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE):
        for name in names.split(", "):
            sentence = " ".join(description.split()).replace("None", "null")
            schema["properties"][name]["description"] = sentence[0].upper() + sentence[1:]
