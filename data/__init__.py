"""Readers of files (`formats`), data sets by domain, and the `catalogue` of public ones."""
