"""Models of bags of instances."""
