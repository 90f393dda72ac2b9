"""Training: the loop, the order of the data, and the verbs train and evaluate."""
