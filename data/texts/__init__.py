"""Texts: tables of them with labels, and their tokens."""
