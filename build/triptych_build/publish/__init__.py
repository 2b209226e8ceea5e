"""A verified model into the model repository: a new version with its `config.pbtxt` and its manifest.

`target` lists what can run a detector, `artifact` says which files suit it, `config_pbtxt` writes what Triton reads.
The `model.py` of the Python backend are in `targets/`, copied as they are.
"""
