"""The exception for bad input, and short texts of other exceptions."""

import re


class InputError(ValueError):
    """Bad input: a file, a flag or a config field.

    The message is one line: what is wrong, where, and what to do. The binaries print it without a
    traceback and exit with status 1. A caller in Python can catch it.
    """


def first_line(error):
    """The first line of an exception's message; the name of its class if the message is empty.

    The name of the operation, with which TensorFlow starts some messages, is left out.
    """
    lines = (re.sub(r"^\{\{.*?\}\} ", "", line.strip()) for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)
