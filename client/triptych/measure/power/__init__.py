"""What a load takes in watts: GPUs and processors, over exactly the measured time."""
