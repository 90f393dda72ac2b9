"""Attention and token-mixing mechanisms, one a file."""
