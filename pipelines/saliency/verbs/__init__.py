"""Further verbs of saliency, one per file."""
