"""Models of clicks."""
