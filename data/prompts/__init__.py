"""Prompts for language models: read from tables of people, or generated over their texts."""
