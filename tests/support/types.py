"""What fixtures of several files hand out."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

Start = Callable[..., "subprocess.Popen[str]"]
"""Starts a load test with these arguments."""

Loadtest = Callable[..., "subprocess.CompletedProcess[str]"]
"""Runs a load test to its end with these arguments."""
