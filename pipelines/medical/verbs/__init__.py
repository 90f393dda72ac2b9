"""Further verbs of medical, one a file."""
