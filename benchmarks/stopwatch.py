"""CPU time of the inference alone, within a model's process; `pipeline.py` puts it beside the detector's model.py."""

import os
import time
from pathlib import Path


def watch(owner, method):
    """Make a method of a class add up the CPU time of its calls in a file, one for each process."""
    inner, path = getattr(owner, method), Path(__file__).with_name(f"inference-{os.getpid()}")
    used = 0.0

    def timed(*arguments):
        nonlocal used
        started = time.process_time()
        result = inner(*arguments)
        used += time.process_time() - started
        path.write_text(str(used))
        return result

    setattr(owner, method, timed)
