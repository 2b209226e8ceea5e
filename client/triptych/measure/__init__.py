"""Where the time goes: windows, traces, attribution, run files, comparisons and sweeps.

Pure functions on what was measured. Only `documents`, `side_by_side`, `environment`, `traces` and `sweep_runner` touch
files, clocks or a server.
"""
