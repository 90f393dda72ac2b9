"""Mechanisms for the cells of a picture, which know what lies beside what."""
