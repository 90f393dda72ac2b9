"""One file format a file: a file in, an array or a table out. No task is known here."""
