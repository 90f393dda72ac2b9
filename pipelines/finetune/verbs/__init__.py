"""Further verbs of fine-tuning."""
