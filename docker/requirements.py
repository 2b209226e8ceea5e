"""Print the packages that Triptych needs, a line each, without those whose names begin with a word given.

A change of our own code then leaves the layer with the packages as it is.
"""

import sys
from pathlib import Path

import tomllib

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
sys.stdout.writelines(f"{line}\n" for line in project["dependencies"] if not line.startswith(tuple(sys.argv[1:])))
