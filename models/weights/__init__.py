"""Readers of published weights, one family a file."""
