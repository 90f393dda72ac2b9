"""Custom operators: one operator a file, with its maths, its PyTorch reference and its Triton kernel."""
