"""What travels between client and server: channels, requests, answers, statistics, and the model control API.

Nothing here knows an image or a table; `triptych.client` puts these parts together.
"""
