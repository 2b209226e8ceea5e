"""Videos, cameras and streams: read the frames, detect, track, and write a line for each.

The stages work at the same time, and each knows what it takes of a frame's latency (`triptych track`).
"""
