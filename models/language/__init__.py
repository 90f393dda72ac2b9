"""Language models with long contexts: plans of attention, cut caches, how plans are made."""
