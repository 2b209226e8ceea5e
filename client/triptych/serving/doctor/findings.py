"""A finding: how bad it is, which kind it is, what it is about, what is the matter and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["ok", "warning", "not to be served", "will not load"]

SEVERITIES: tuple[Severity, ...] = ("ok", "warning", "not to be served", "will not load")
"""From best to worst."""


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        severity: one of `SEVERITIES`.
        id: names this kind of finding for programs; it stays the same when the words change.
        subject: what it is about: a version of the detector, or the deployment. `examine` fills it in.
        text: the sentence for people.
        advice: what to do about it, in words that follow the text; empty where there is nothing to do.
    """

    severity: Severity
    id: str
    subject: str
    text: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.text}; {self.advice}" if self.advice else self.text


def passed(id: str, text: str) -> Finding:  # noqa: A002
    """Return a finding that all is well."""
    return Finding("ok", id, "", text)


def warning(id: str, text: str, advice: str = "") -> Finding:  # noqa: A002
    """Return a finding of what may go wrong."""
    return Finding("warning", id, "", text, advice)


def refusal(id: str, text: str, advice: str = "") -> Finding:  # noqa: A002
    """Return a finding of what will not load."""
    return Finding("will not load", id, "", text, advice)


def worst(findings: Iterable[Finding]) -> Severity:
    """Return the worst severity among findings; "ok" if there are none."""
    return max((finding.severity for finding in findings), key=SEVERITIES.index, default="ok")
