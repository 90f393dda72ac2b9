"""Domain models, one a file, on the shared core (`attention`, `moe`, `blocks`)."""
