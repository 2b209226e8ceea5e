"""The fault campaign: what a service must survive, done to a real one while users send images.

PYTHONPATH=tests python -m faults                # everything, with half an hour of soak
PYTHONPATH=tests python -m faults --short        # a minute and a half
PYTHONPATH=tests python -m faults --only soak --minutes 30
"""
