"""The profile of a detector: `subject` finds the file, `operators` knows it in its runtime's layers, `measure` runs it.

What a profile holds and shows is in `triptych.measure.profile` and `profile_change`.
"""
