"""Language models of Hugging Face: what their attention does, and plans that make it cheaper."""
