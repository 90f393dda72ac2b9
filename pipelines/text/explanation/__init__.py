"""Explanations of texts: what each word adds to a label, as pages, and a check of them."""
