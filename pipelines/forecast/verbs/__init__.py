"""Further verbs of forecast, one a file."""
