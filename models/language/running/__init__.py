"""Plans at work in language models of transformers: attention, caches, and what they refuse."""
