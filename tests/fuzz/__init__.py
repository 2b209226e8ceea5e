"""A fuzz campaign: damaged files and malformed requests for a real server, which must answer every one.

PYTHONPATH=tests python -m fuzz --seed 1 --minutes 30 --files 400000 --requests 10000
"""
