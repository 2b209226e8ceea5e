"""The gate: accuracy, determinism and latency through the deployed ensemble, against the FP32 source."""
