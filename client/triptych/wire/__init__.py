"""The conversation with a Triton server: channels, requests, answers, errors, statistics and model control.

`triptych.client` puts these parts together. Nothing here draws, prints or measures.
"""
