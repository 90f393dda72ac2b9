"""What `--input` may be, and the rows of the output."""
