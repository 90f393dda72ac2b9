"""Further verbs of the task, one a file."""
