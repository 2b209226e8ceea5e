"""The arrows between the wings point downwards; pyproject.toml has the layers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support import ROOT


def test_wings_import_downwards_only() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_wing_says_what_it_is_for() -> None:
    roots = ["client/triptych", "build/triptych_build", "loadtest/triptych_loadtest", "demo/triptych_demo"]
    silent = [
        str(path.relative_to(ROOT))
        for root in roots
        for path in (ROOT / root).rglob("__init__.py")
        if not path.read_text().startswith('"""')
    ]
    assert silent == []
