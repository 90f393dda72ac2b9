"""Readers of file formats, and the data sets of each domain."""
