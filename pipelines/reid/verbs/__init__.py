"""Further verbs of reid, one a file."""
