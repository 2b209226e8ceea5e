"""Reports of what was measured: one HTML file that needs nothing else, Markdown for a pull request, and tables.

page = report.of_run(run_file.read(path), "demo")
report.write(Path("demo.html"), report.html(page))
"""

from __future__ import annotations

from pathlib import Path

from triptych.errors import ContractError
from triptych.escape import ESCAPE
from triptych.files import atomic_write
from triptych.report.comparison import of_comparisons
from triptych.report.overhead import of_overhead
from triptych.report.profile import of_profile
from triptych.report.render import html, markdown
from triptych.report.run import of_run
from triptych.report.sweep import of_sweep
from triptych.report.tuning import of_tuning

__all__ = [
    "html",
    "markdown",
    "of_comparisons",
    "of_overhead",
    "of_profile",
    "of_run",
    "of_sweep",
    "of_tuning",
    "page_path",
    "write",
]


def page_path(path: Path) -> Path:
    """Return where the page of a run or of a sweep goes: next to its file.

    Raises:
        ContractError: the page would overwrite the file.
    """
    if path.suffix == ".html":
        raise ContractError(
            f"the page of the run would overwrite {path}; name a JSON file, such as {path.with_suffix('.json')}"
        )
    return path.with_suffix(".html")


def write(path: Path, text: str) -> None:
    """Write a report; the file is whole or not there.

    Raises:
        ContractError: it cannot be written.
    """
    try:
        with atomic_write(path) as aside:
            aside.write_text(text, encoding="utf-8", errors=ESCAPE)
    except OSError as error:
        raise ContractError(
            f"the report cannot be written to {path} ({error.strerror}); choose another place"
        ) from error
