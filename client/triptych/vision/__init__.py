"""Pixels and boxes: encoded images to the detector's input, candidates to boxes, boxes on a picture.

These are functions on arrays. The only files they read are those that a caller names as images.
"""
