"""Further verbs of reasoning."""
