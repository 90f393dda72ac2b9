"""The one exception that means: the input is at fault, not the program."""


class InputError(ValueError):
    """Something a person gave (a file, a column, an option) cannot be used.

    The message is one line: what is wrong, where, and what to do. The command line prints it as it
    is, without a traceback, and exits with code 2."""
