"""Mechanisms that leave out a part of attention, and what their maps then show (Deconstructing
Attention, arXiv 2510.11602).
"""
