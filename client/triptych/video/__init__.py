"""A video through the pipeline of detect, track and write, with the time that each of its stages takes."""
