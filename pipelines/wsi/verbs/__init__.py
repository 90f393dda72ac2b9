"""Further verbs of wsi, one a file."""
