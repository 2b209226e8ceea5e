"""One detector on every runtime, side by side."""
