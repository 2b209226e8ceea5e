"""What the stages' own processes say of themselves: counters for Prometheus, lines for the log."""
