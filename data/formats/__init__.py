"""Readers of file formats, one format per file: from a file to arrays or tables."""
