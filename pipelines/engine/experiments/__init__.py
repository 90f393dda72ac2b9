"""Folders of trainings: variants, seeds, repeats and folds, resumable, and their tables."""
