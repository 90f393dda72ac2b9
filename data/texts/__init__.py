"""Texts: tables of them, sentences with offsets, stories of several articles, judged pairs."""
