"""A trained run behind an address: files or rows in by HTTP, predictions out as JSON."""
