"""Several findings of a picture at once, each with a probability and an operating point."""
