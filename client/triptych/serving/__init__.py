"""The embedded Triton server and what it serves: processes, supervision, model repository, preflight, doctor."""
