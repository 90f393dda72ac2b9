"""Logs of clicks and other events."""
