"""Language models: plans of their attention over long contexts."""
