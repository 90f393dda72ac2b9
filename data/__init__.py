"""Readers and data sets: one task a file, and what they share."""
