"""What every task shares: command line, training loop, checkpoints, batch inference, run directory,
report.
"""
