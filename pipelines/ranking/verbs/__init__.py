"""Further verbs of ranking, one a file."""
