"""Many trainings: variants, seeds, folds."""
