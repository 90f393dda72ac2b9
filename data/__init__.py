"""Readers of file formats, the data sets of each domain, and a catalogue of public ones."""
