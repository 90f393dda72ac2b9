"""Language models of Hugging Face: plans of their attention, and what a tuning changes of them."""
