"""Pictures with depth."""
