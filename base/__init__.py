"""What everything stands on: errors and files. Imports nothing of ours."""
