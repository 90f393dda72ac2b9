"""Errors and files: the ground floor, which imports nothing else of headwise."""
