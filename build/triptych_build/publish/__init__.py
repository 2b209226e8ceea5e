"""A verified model into the model repository: a new version, its manifest, its config.pbtxt."""
