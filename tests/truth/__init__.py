"""The planted truth: servers and detectors whose capacity, latency, accuracy and losses are known, and our figures.

Every command's figure has to lie within its own stated interval of the truth, at the stated confidence, over 200 seeds.
Servers are simulated in virtual time, up to the traces and counters that Triton would write; detectors err as planned.

PYTHONPATH=tests python -m truth                          # every claim, over 200 seeds
PYTHONPATH=tests python -m truth --seeds 40 --only verify
"""
