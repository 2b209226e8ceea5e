"""The demo: a detector for defects on circuit boards, and the whole of Triptych run on it."""
