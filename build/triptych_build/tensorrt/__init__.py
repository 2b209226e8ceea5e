"""TensorRT plans: what the builder is told, the build, and what is known of a plan afterwards."""
