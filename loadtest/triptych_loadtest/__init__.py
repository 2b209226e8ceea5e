"""The load generator: users for Locust, what they record, and a run from warm-up to run file.

Locust patches the standard library for gevent as it is imported: whatever starts a process with the users imports
`locust` first.
"""
