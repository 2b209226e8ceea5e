"""The shell blocks of the project's documents, with the marks that say which of them a test runs."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from support import ROOT

SHELLS = {"bash", "sh", "shell", "console"}

_FENCE = re.compile(r"^ *```(\w*)\s*$")
_MARK = re.compile(r"^<!-- (?P<no>no )?test(?:: (?P<words>.*))? -->$")


@dataclass(frozen=True)
class Block:
    """A shell block.

    Attributes:
        document: the file, from the checkout's root.
        line: of its first command, from 1.
        language: of its fence; "" for the output of a command that begins with `$ `.
        text: what stands between its fences.
        tested: whether a test runs it; None without a mark.
        words: what the mark says after the colon.
    """

    document: str
    line: int
    language: str
    text: str
    tested: bool | None
    words: str

    def __str__(self) -> str:
        """Such as `README.md:12`."""
        return f"{self.document}:{self.line}"

    @property
    def commands(self) -> str:
        """What a reader types: the whole of a script, and of a transcript the lines after `$ `."""
        if self.language not in {"", "console"}:
            return self.text
        typed: list[str] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                typed.append(line[2:])
            elif typed and typed[-1].endswith("\\"):
                typed.append(line)
        return "\n".join(typed)


def documents() -> list[str]:
    """Name every document that readers paste from."""
    paths = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [str(path.relative_to(ROOT)) for path in paths]


def shell_blocks(document: str) -> list[Block]:
    """Read the shell blocks of a document."""
    return list(_blocks(document, (ROOT / document).read_text().splitlines()))


def _blocks(document: str, lines: list[str]) -> Iterator[Block]:
    start, language, before = None, "", ""
    for number, line in enumerate(lines):
        fence = _FENCE.match(line)
        if start is None:
            if fence:
                start, language = number + 1, fence[1]
            elif line.strip():
                before = line.strip()
        elif fence:
            text = textwrap.dedent("\n".join(lines[start:number]))
            if language in SHELLS or (not language and text.startswith("$ ")):
                mark = _MARK.match(before)
                tested = None if mark is None else not mark["no"]
                yield Block(document, start + 1, language, text, tested, (mark and mark["words"]) or "")
            start, before = None, ""
    assert start is None, f"{document}:{start}: the block does not end"
