"""Where the time goes: windows, traces, attribution, run files, comparisons and sweeps.

Pure functions on what was measured, except the modules named `*_runner` and `environment`.
"""
