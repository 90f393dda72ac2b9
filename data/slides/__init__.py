"""Whole-slide images and bags of their tiles."""
