"""Metrics by family. Functions of tensors or arrays; they know no task."""
