"""Pixels and boxes: encoded images to the detector's input, candidates to boxes, boxes on a picture.

Pure functions on arrays; no file but the one that a caller names, no network, no clock.
"""
