"""Command-line programs: flags in, one function call out, a one-line error on bad input.

Each binary has its own set of flags, so that several binaries can be imported in one process:

    FLAGS = cli.flag_set()
    _WORKDIR = flags.DEFINE_string("workdir", None, "...", required=True, flag_values=FLAGS)

    def main(): ...

    def console(): cli.run(main, FLAGS, __doc__)
"""

import contextlib
import difflib
import os
import sys

from absl import app, flags, logging

from kpose.core import files, startup
from kpose.core.errors import InputError


def flag_set():
    """An empty set of absl flags for one binary."""
    return flags.FlagValues()


def run(main, flag_values, doc, prepare=None, tensorflow=True, choices=(), arguments=None):
    """Runs `main()` as a command-line program, and exits.

    Args:
        main: the function that does the work. If it raises `InputError`, or `OSError` as on a full
            disk, the program prints a one-line error to stderr and exits with status 1.
        flag_values: the binary's flags, from `flag_set`.
        doc: the text that `--help` prints above the flags.
        prepare: function from the list of arguments to the list that is parsed.
        tensorflow: whether `main` uses TensorFlow.
        choices: allowed values of the first argument, which is passed to `main`.
        arguments: name of a flag that takes several values. Arguments without a flag's name are
            added to its values. At least one value is required.
    """

    def guarded(argv):
        words = _positional(argv[1:], flag_values, choices, arguments)
        _start_logging()
        try:
            if tensorflow:
                startup.keep_freed_memory()
                startup.import_tensorflow()
            main(*words)
        except InputError as error:
            _fail(error)
        except ModuleNotFoundError as error:
            fail_without(error)
        except BrokenPipeError:
            raise
        except OSError as error:
            logging.debug("traceback of the error", exc_info=True)
            _fail(_describe(error))

    try:
        if {"--help", "-h", "-help"} & set(sys.argv[1:]):
            print(_usage(flag_values, doc), flush=True)
            sys.exit(0)
        app.run(guarded, flags_parser=lambda argv: _parse(argv, flag_values, prepare))
    except KeyboardInterrupt:
        _fail("interrupted")
    except BrokenPipeError:
        # The reader closed the pipe, for example `| head`. Flushing at exit would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _describe(error):
    """The message of an `OSError`, which names its file."""
    name, reason = error.filename or "the output", error.strerror or str(error)
    if error.errno in files.FULL:
        return f"{name}: cannot be written ({reason}): free some disk space and run the same command again"
    return f"{name}: {reason}" if error.filename else str(error)


def fail_without(error):
    """Ends the program with one line that says which package is missing.

    Args:
        error: the `ModuleNotFoundError`. If it is about a module of kpose, it is raised: a bug.
    """
    package = (error.name or "").partition(".")[0]
    if package in ("", "kpose", "tfrecords_tools"):
        raise error
    _fail(
        f"this needs the package {package}, which is not installed: install all packages with "
        "pip install . in a checkout (requirements-predict.txt is for predictions alone)"
    )


def _fail(message):
    """Prints a one-line error to stderr and exits with status 1."""
    program = os.path.basename(sys.argv[0])
    if program.endswith(".py"):
        program = f"python -m {sys.modules['__main__'].__spec__.name.removesuffix('.__main__')}"
    print(f"{program}: error: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(1)


def _parse(argv, flag_values, prepare):
    """Parses the flags; returns the program's name and the arguments that are not flags."""
    try:
        _check_names(argv[1:], flag_values)
        _check_required(argv[1:], flag_values)
        argv = prepare(argv) if prepare else argv
        with _as_sys_argv(argv):
            return flags.FLAGS(flag_values(argv, known_only=True))
    except (flags.Error, InputError) as error:
        _fail(f"{error} (--help lists the flags)")


@contextlib.contextmanager
def _as_sys_argv(argv):
    """Replaces `sys.argv` while flags are parsed: ml_collections reads --config.FIELD from it."""
    before, sys.argv = sys.argv, argv
    try:
        yield
    finally:
        sys.argv = before


def _positional(words, flag_values, choices, arguments):
    """The arguments of `main`: checks `words`, the arguments without a flag's name."""
    if arguments:
        flag = flag_values[arguments]
        flag.value = [*(flag.value or ()), *words]
        words = []
        if not flag.value:
            # As in `_usage`.
            text = flag.help.partition(";\n")[0]
            _fail(f"--{arguments} is missing: {text} (--help lists the flags)")
    if choices and (not words or words[0] not in choices):
        _fail(f"the first argument must be one of {', '.join(choices)} (--help explains them)")
    if len(words) > bool(choices):
        _fail(f"unexpected argument {words[-1]!r}: other settings are flags (--help lists them)")
    return words


def _start_logging():
    """Logs INFO and above, without prefixes and without TensorFlow's own INFO lines."""
    logging.set_verbosity(flags.FLAGS.verbosity if flags.FLAGS["verbosity"].present else logging.INFO)
    handler = logging.get_absl_handler()
    handler.setFormatter(None)
    # TensorFlow also logs through absl, for example the planning time of a checkpoint.
    handler.addFilter(lambda record: record.levelno > logging.logging.INFO or "tensorflow" not in record.pathname)


def _check_names(arguments, flag_values):
    """Raises `InputError` for an unknown flag, with the flag that has the most similar name.

    absl would report a misspelt required flag as missing.
    """
    known = {*flag_values, *flags.FLAGS}
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0]
        if not argument.startswith("--") or name.startswith("config.") or name in known | {"", "flagfile", "undefok"}:
            continue
        if name.startswith("no") and name[2:] in known:
            continue
        near = difflib.get_close_matches(name, flag_values, n=1)
        raise InputError(f"unknown flag --{name}" + (f": did you mean --{near[0]}?" if near else ""))


def _check_required(arguments, flag_values):
    """Raises `InputError` for a missing flag, with its help text, which absl's message lacks."""
    given = {argument.lstrip("-").partition("=")[0] for argument in arguments}
    for name in flag_values:
        if flag_values[name].default is None and name not in given and flag_values[name].validators:
            raise InputError(f"--{name} is missing: {flag_values[name].help}")


def _usage(flag_values, doc):
    """The text of --help."""
    lines = [(doc or "").strip(), "", "Flags:"]
    for name in sorted(flag_values):
        flag = flag_values[name]
        default = ",".join(flag.default) if isinstance(flag.default, list) else flag.default
        shown = "" if default in (None, "") else f" (default: {default})"
        # absl adds a second line to the help of flags that may be repeated.
        text = flag.help.partition(";\n")[0]
        lines += [f"  --{name}", f"      {text}{shown}"]
    return "\n".join(lines)


def parse_size(values, name):
    """(height, width) in pixels, from the values of a list flag: one side, or height and width.

    Args:
        values: list of str.
        name: the flag's name, for the error.

    Raises:
        InputError: the values are not one or two positive integers.
    """
    try:
        sides = tuple(int(value) for value in values)
    except ValueError:
        sides = ()
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise InputError(f"--{name}={','.join(values)}: give one side, or HEIGHT,WIDTH, in pixels")
    return sides * 2 if len(sides) == 1 else sides
