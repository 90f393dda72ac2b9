"""Further verbs of speech, one a file."""
