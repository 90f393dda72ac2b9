"""Texts: tables of texts, their labels, topics and what raters say of them."""
