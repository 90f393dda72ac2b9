"""Prediction for any number of items, and export."""
