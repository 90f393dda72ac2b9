"""What attention does in a language model: heads that fetch, and sinks."""
