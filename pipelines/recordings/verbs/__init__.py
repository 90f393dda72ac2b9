"""Further verbs of recordings."""
