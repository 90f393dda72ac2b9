"""Figures that several tasks draw."""
