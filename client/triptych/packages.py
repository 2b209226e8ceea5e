"""The command that installs a missing optional package, ready to paste.

Triptych may come from a checkout or a wheel file, where `pip install 'triptych[rtx]'` would not find it. So the command
names the packages of the extra, with the versions that this release was tested with.
"""

from __future__ import annotations

import re
import shlex
from importlib.metadata import requires


def install_command(extra: str) -> str:
    """Return the command that installs an extra's packages, such as "pip install 'tensorrt>=8.5,<12' ...".

    Args:
        extra: a name of `[project.optional-dependencies]`: `rtx`, `tensorrt`, `torch`.

    Raises:
        ValueError: there is no such extra.
    """
    marker = re.compile(rf"""extra\s*==\s*['"]{re.escape(extra)}['"]""")
    packages = [entry.split(";")[0].strip() for entry in requires("triptych") or () if marker.search(entry)]
    if not packages:
        raise ValueError(f"there is no extra {extra!r}")
    return shlex.join(["pip", "install", *packages])


def requirements(*names: str) -> str:
    """Return packages that Triptych needs, with the versions that it needs, for a shell: "'numpy<2,>=1.24'"."""
    entries = [entry.split(";")[0].strip() for entry in requires("triptych") or ()]
    return shlex.join([entry for entry in entries if re.split(r"[^\w-]", entry)[0] in names])
