"""The report of what a service costs beyond a loop in one process: who has it, and what would take it away."""

from __future__ import annotations

from triptych.measure.overhead import Overhead, Setting
from triptych.report.blocks import Block, Figure, Figures, Note, Page, Row, Section, Table
from triptych.report.owners import stacked
from triptych.report.setting import again, environment_sections, started

SIDES = ("own loop", "served")


def of_overhead(overhead: Overhead) -> Page:
    """Return the report."""
    return Page(
        title="A service against a loop of one's own",
        subtitle=f"{overhead.frames} images of each side, in turn, {started(overhead.started)}",
        headline=overhead.sentence,
        sections=[
            Section("", _verdicts(overhead)),
            Section("Who has the difference", [_bars(overhead), overhead_table(overhead)]),
            *([Section("What would take it away", [_advice(overhead)])] if overhead.advice else ()),
            *environment_sections(overhead.environment),
            again(overhead.command, overhead.images),
        ],
    )


def setting_sentence(setting: Setting) -> str:
    """Say how the two sides ran."""
    threads = "" if setting.loop_threads is None else f", threads: {setting.loop_threads}"
    each = "" if setting.served_threads is None else f", threads of each: {setting.served_threads}"
    users = f"{setting.users} requests at once" if setting.users > 1 else "one request after the other"
    return (
        f"loop: {setting.runtime} in one process{threads}; service: instances of the detector: {setting.instances}"
        f"{each}, {users}"
    )


def agreement_sentence(overhead: Overhead) -> str:
    """Say whether both sides did the same work, and how the parts are known."""
    return (
        f"both found the same objects in {overhead.agreed} of {overhead.frames} images; the service's parts are from "
        f"the server's {overhead.source}"
    )


def overhead_table(overhead: Overhead) -> Table:
    """Return the owners of the difference, which add up to it."""
    rows = [
        Row([row.owner, f"{row.loop_ms:.2f}", f"{row.served_ms:.2f}", f"{row.difference_ms:+.2f}"])
        for row in overhead.rows
    ]
    total = ["an image, end to end", f"{overhead.loop_ms:.2f}", f"{overhead.served_ms:.2f}"]
    return Table(["ms", *SIDES, "difference"], [*rows, Row([*total, f"{overhead.difference_ms:+.2f}"], "total")])


def _verdicts(overhead: Overhead) -> list[Block]:
    differ = overhead.agreed < overhead.frames
    return [
        Figures(
            [
                Figure(f"{overhead.loop_ms:.1f}", "ms", SIDES[0]),
                Figure(f"{overhead.served_ms:.1f}", "ms", SIDES[1]),
                Figure(f"{overhead.difference_ms:+.1f}", "ms", "difference"),
            ]
        ),
        Note(setting_sentence(overhead.setting)),
        Note(agreement_sentence(overhead), "warning" if differ else "small"),
    ]


def _bars(overhead: Overhead) -> Block:
    loop = {row.owner: row.loop_ms for row in overhead.rows}
    served = {row.owner: row.served_ms for row in overhead.rows}
    return stacked(
        dict(zip(SIDES, (loop, served), strict=True)),
        dict(zip(SIDES, (overhead.loop_ms, overhead.served_ms), strict=True)),
    )


def _advice(overhead: Overhead) -> Table:
    rows = [Row([row.owner, row.advice, f"{row.difference_ms:+.2f}"]) for row in overhead.advice]
    return Table(["owner", "how", "ms"], rows, words=2)
