"""Layers and backbones that several models share."""
