"""Further verbs of saliency, one a file."""
