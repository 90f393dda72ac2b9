"""Further verbs of text, one a file."""
