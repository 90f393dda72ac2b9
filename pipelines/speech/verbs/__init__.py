"""Verbs that only speech has, and what only they need."""
