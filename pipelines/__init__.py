"""End-to-end pipelines, one task a file, on the engine."""
