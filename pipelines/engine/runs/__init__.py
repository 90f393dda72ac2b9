"""A run: its directory, its checkpoints, its report, and opening it again."""
