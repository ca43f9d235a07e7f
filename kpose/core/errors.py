"""The one exception that means: the input is at fault, not the program."""


class InputError(ValueError):
    """Bad input from outside: a file, a flag, a config field.

    Its message is one line that says what was wrong, where, and what to do. The binaries print it without a
    traceback and exit with status 1; a caller in Python can catch it.
    """


def first_line(error):
    """What another library's exception says, in one line; its kind where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
