"""Language models of Hugging Face: plans of attention over long contexts, cut caches, tuning."""
